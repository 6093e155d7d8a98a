"""Generated from ``proto/shoal_proto/v1`` by ``proto/generate.py``; never edited by hand."""
