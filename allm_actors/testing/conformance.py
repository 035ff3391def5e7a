"""The conformance suite: what every adapter promises, as tests that a third party runs against theirs.

A subclass of `AdapterConformance` says with `prepare(scenario)` how its provider is made to show a named
scenario; every check then calls the adapter as the library does and compares what it saw.
"""
