"""The verbs of generations, one a file: parse, call, say."""
