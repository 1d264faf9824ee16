"""A graph of primitive operators in, LLVM or PTX text and object code out; see README.md."""
