"""How a spec and its schemes are written: damo's layout (JSON, YAML), other tools' files and text, a short form."""
