package router

// The API others build against; bodies follow.

// Host is the compiled set of routes of one host pattern, immutable.
// func NewHost(name string, routes []*Route, fallback *Route) *Host
//   name: "a.example", "*.example" or "" ; lower-case, no trailing dot, no port.
//   routes in order of precedence: of two with the same Path and PathType the first wins.
//   fallback answers paths that no route matches; nil: the Table's fallback.
// func (h *Host) Name() string
// func (h *Host) Routes() []*Route                 // in matching order, for dumps
// func (h *Host) Fallback() *Route
// func (h *Host) Match(path []byte) *Route         // nil: nothing, not even a fallback

// Table is one immutable generation of routing.
// func NewTable() *Table                            // empty, generation 0
// func (t *Table) Generation() uint64
// func (t *Table) Match(host, path []byte) *Route  // host as in engine.Request.Host
// func (t *Table) Host(name string) *Host
// func (t *Table) Hosts() iter.Seq[*Host]           // sorted by name
// func (t *Table) Fallback() *Route
// func (t *Table) Edit() *Edit
// Edit makes the next Table out of one, sharing all that stays the same. For one goroutine.
// func (e *Edit) Put(h *Host); Remove(name string); SetFallback(r *Route); func (e *Edit) Table() *Table (generation+1)

// Backend
// type Target struct { Address netip.AddrPort; Name string (for people: the Pod) ; Zone, Node? }
// type Backends (registry, owner goroutine)
// func NewBackends(cfg BackendsConfig) *Backends
// func (r *Backends) Get(name string) *Backend      // made on first use
// func (r *Backends) SetTargets(name string, targets []Target)
// func (r *Backends) Keep(names map[string]struct{}) // closes and forgets all others
// func (b *Backend) Name() string; Endpoints() []*Endpoint; Pick(...)
// func (e *Endpoint) Address() netip.AddrPort, Name() string, InFlight() int, Down() bool

// Stats
// type StatsKey struct { Host, Origin, Service string }
// func NewStatsSet() *StatsSet ; func (s *StatsSet) Get(StatsKey) *Stats ; func (s *StatsSet) Keep(map[StatsKey]struct{}) ; All() iter.Seq2[StatsKey,*Stats]
