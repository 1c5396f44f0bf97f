CREATE TABLE nodelist (
  nodename TEXT UNIQUE PRIMARY KEY,
  ip TEXT,
  port INTEGER,
  keyfile TEXT,
  rootkeyfile TEXT,
  status INTEGER,
  invfile TEXT,
  idle TIMESTAMP DATE
);
