"""Where rows come from: files, uploads, packages, object storage."""
