"""Selection kernels: the n largest of every group, branch and bound for V:N:M, histograms for global thresholds."""
