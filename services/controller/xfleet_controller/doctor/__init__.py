"""The doctor: looks at everything an installation needs and says, line by line, what is wrong and what to do."""
