"""`xfleet demo`: a fleet of three with live traffic on this machine, and nothing left afterwards."""
