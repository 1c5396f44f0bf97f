CREATE TABLE images (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  md5 TEXT DEFAULT 0,
  name TEXT UNIQUE,
  path TEXT UNIQUE,
  source,
  emulator TEXT DEFAULT 0,
  size INTEGER DEFAULT '0' NULL,
  created TIMESTAMP DATE DEFAULT (datetime('now','localtime'))
);
