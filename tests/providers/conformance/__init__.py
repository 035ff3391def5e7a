"""The bundled providers, run through the conformance suite."""
