"""`xfleet up`: a whole fleet of one on this machine, out of the same parts as any other."""
