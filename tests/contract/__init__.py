"""What others rely on: schemas, wire format, headers, two logs behind one protocol."""
