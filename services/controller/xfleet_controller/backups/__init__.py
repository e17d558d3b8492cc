"""Backups: one encrypted file with the database and all keys, made by hand or on a schedule, and put back."""
