"""The page of `fastzss serve`: drop an image, type words, see masks; and the same for programs.

settings.py   what can be set, the limits among it        server.py    a port, a model, and an orderly end
uploads.py    a request's bytes -> fields, image, words   turns.py     how much is done at a time
looks.py      images that were looked at, and are kept    answers.py   a look and words -> masks, heat, names
guard.py      who may ask, and headers                    app.py       addresses -> answers
examples.py   six pictures to begin with                  page.*       what the browser gets

No byte of a request is ever written to disk, and no path in one is looked at.
"""
