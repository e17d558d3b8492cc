"""The operator's verbs: questions and orders on the bus, with the web tier down as well."""
