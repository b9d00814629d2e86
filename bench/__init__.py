"""What is measured, and against which limit. `make bench` runs the short forms; results are kept in `results/`."""
