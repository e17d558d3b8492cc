"""For whoever has the machine but not the password: admins on the console, also while nothing runs."""
