"""The table of `benches/run`: its rows, what is told of them, and its plots."""
