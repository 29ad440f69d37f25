"""The rules of the diagnosis, by what they look at. Each takes a `View` and yields `Issue`s; none writes anything."""
