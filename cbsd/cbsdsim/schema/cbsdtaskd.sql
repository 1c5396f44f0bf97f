CREATE TABLE taskd (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  st_time TEXT DEFAULT 'now',
  end_time TEXT DEFAULT 0,
  user TEXT DEFAULT 'root',
  cmd TEXT DEFAULT 0,
  status INTEGER DEFAULT 0,
  errcode INTEGER DEFAULT 0,
  owner TEXT DEFAULT 'root',
  logfile TEXT DEFAULT 0,
  logtype TEXT DEFAULT 'auto',
  notify INTEGER DEFAULT 1,
  autoflush INTEGER DEFAULT 0,
  after INTEGER DEFAULT 0,
  client_id INTEGER DEFAULT 0,
  jname TEXT DEFAULT 0
);
