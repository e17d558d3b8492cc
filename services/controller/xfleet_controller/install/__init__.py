"""`/install/`: the script of the joining line, our own wheel, and the wheels it needs."""
