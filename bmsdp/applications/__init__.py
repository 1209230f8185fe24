"""One module per application: ``problem(data) -> Problem`` and ``recover(result) -> answer``.

A module's docstring is its derivation. Values and bounds are in the sense of the application, not of the SDP.
"""
