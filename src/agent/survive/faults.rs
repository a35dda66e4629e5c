//! Faults of the disk from each operation on.
