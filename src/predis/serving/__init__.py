"""The data plane: protocol, Routes, runtimes, and the process that answers predictions."""
