"""The loop passes, a file each: a kernel in, a kernel out. `lowering.pipeline` lists them in order."""
