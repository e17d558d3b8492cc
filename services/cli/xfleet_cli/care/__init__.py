"""Care of an installation: backups, lost passwords, the doctor, and the system service."""
