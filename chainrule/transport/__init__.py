"""How vectors and messages travel between server and worker."""
