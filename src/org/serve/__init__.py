"""The room over HTTP: event streams, a JSON API, and a server that hands over without losing a request."""
