"""What every process of ours needs: a clean end, BLAS threads, logs, memory, checks of the machine."""
