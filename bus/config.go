package bus

// Config is one broker's section of a pool's configuration file. The first
// group of keys is the original's.
type Config struct {
	URI              string  `json:"uri"`               // host:port, a URL, or "embedded" (nats)
	Tube             string  `json:"tube"`              // the pool's queue
	ReplyTubePrefix  string  `json:"reply_tube_prefix"` // replies go to <prefix><number>
	ReconnectTimeout Seconds `json:"reconnect_timeout"` // ceiling of the wait between two attempts to connect
	ReserveTimeout   Seconds `json:"reserve_timeout"`   // longest wait of one call for a message
	PublishTimeout   Seconds `json:"publish_timeout"`   // longest wait for the broker's confirmation
	LogDir           string  `json:"logdir"`            // of the original; not used

	User     string `json:"user"`
	Password string `json:"password"`
	// PasswordFile holds the password, or the token where there is no User. It is
	// read at each connection.
	PasswordFile string `json:"password_file"`
	Token        string `json:"token"`
	Creds        string `json:"creds"` // nats: a .creds file
	SASL         string `json:"sasl"`  // kafka: how user and password are shown; default the best that the broker offers

	TLS  bool   `json:"tls"`
	CA   string `json:"ca"`   // PEM file with the authorities to trust; default the system's
	Cert string `json:"cert"` // PEM file of the client's certificate
	Key  string `json:"key"`  // PEM file of its key

	Replicas int `json:"replicas"` // copies of a queue in a cluster; 0 = nats: three, rabbitmq: no cluster, kafka: the default of the broker

	CurveKey     string `json:"curve_key"`     // zeromq: file with this side's secret key
	CurveServer  string `json:"curve_server"`  // zeromq: the agent's public key; default the one of CurveKey
	CurveClients string `json:"curve_clients"` // zeromq: file with the public keys of those that an agent lets in

	EmbeddedDir    string `json:"embedded_dir"`    // nats, uri embedded: where the broker keeps its messages and its token
	EmbeddedListen string `json:"embedded_listen"` // nats, uri embedded: host:port for other processes
}

// Seconds is a time in seconds, as the original writes it: 5 or 0.5.
type Seconds float64
