"""Other projects' checkpoints: their files, names and dictionaries."""

from .layouts import LAYOUTS as LAYOUTS
