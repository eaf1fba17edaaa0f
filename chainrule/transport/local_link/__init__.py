"""What server and worker use when they share a machine: a Unix socket for messages, and memory for vectors.

The memory has no name (memfd_create), and goes from process to process as a file descriptor on the socket. So nothing
is left behind when a process is killed, and the size of /dev/shm, 64 MB in most containers, doesn't matter.
"""
