"""The watch inside of other libraries' loops, and in a script that is not changed."""
