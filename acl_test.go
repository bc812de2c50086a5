package beequeue_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/redis/rueidis"
	"github.com/stretchr/testify/require"

	"github.com/gobeequeue/beequeue"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// docs/acl.md says which permissions of Redis's the library needs. What it says is
// written by TestACL, from what the library was seen to use, and then tried.

var aclUpdate = flag.Bool("update", false, "TestACL writes what it saw into docs/acl.md and README.md")

// Whom and what the published lines are for.
const (
	aclQueue      = "push"
	aclBase       = "bq:{push}:"
	aclPassword   = "secret"
	aclAtSentinel = "queues" // the user at Sentinels
)

var aclFiles = []string{"docs/acl.md", "README.md"}

// aclRoles are what programs do.
var aclRoles = []struct {
	name  string
	plays func(*aclRun)
}{
	{"producer", aclProduce},
	{"worker", aclWork},
	{"observer", aclObserve},
	{"operator", aclOperate},
}

// aclSettings need more than Dial does by itself.
var aclSettings = []struct {
	what    string
	settle  func(*rueidis.ClientOption)
	cluster bool // it can be had on a cluster as well
}{
	{"a number of a database in the URL, such as `/1`", func(o *rueidis.ClientOption) { o.SelectDB = 1 }, false},
	{"`ClientOption.DisableCache` set back to false", func(o *rueidis.ClientOption) { o.DisableCache = false }, true},
	{"`ClientOption.AlwaysRESP2` with a `ClientName`", func(o *rueidis.ClientOption) { o.AlwaysRESP2, o.ClientName = true, "api" }, true},
}

// aclLater has what the client sends to every server, and Redis 7.0 does not know.
const aclLater = "Redis 7.2 or later"

// aclSite is Redis as programs may find it.
type aclSite struct {
	name             string
	url              string
	nodes            []*redistest.Server // all with data, replicas too
	sentinels        []*redistest.Server
	cluster          *redistest.Cluster
	all              rueidis.Client // whose user may do anything
	server           *server        // for fixtures
	commands         aclCommands
	sentinelCommands aclCommands
}

// aclStart starts one server, a cluster and a Sentinel, each with replicas.
func aclStart(t *testing.T) []*aclSite {
	t.Helper()
	single := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(single.Port))
	cluster := redistest.StartCluster(t, redistest.Steady)
	sentinel := redistest.StartSentinel(t)
	sites := []*aclSite{
		{name: "redis", url: single.URL(), nodes: []*redistest.Server{single, replica}},
		{name: "cluster", url: cluster.URL(), nodes: cluster.Servers, cluster: cluster},
		{name: "sentinel", url: sentinel.URL(), nodes: sentinel.Servers, sentinels: sentinel.Sentinels},
	}
	for _, site := range sites {
		site.all = faultClient(t, site.url)
		site.server = &server{name: site.name}
		for _, node := range site.nodes {
			site.server.nodes = append(site.server.nodes, node.Client(t))
		}
		site.commands = aclCommandsOf(t, site.nodes[0])
		if site.sentinels != nil {
			site.sentinelCommands = aclCommandsOf(t, site.sentinels[0])
		}
	}
	return sites
}

// aclGrant makes a user on all servers: Redis copies none to a replica.
func aclGrant(t *testing.T, servers []*redistest.Server, line string) {
	t.Helper()
	for _, s := range servers {
		require.Equal(t, "OK", aclText(s.Do(t, strings.Fields(line)...)), line)
		s.Do(t, "ACL", "LOG", "RESET")
	}
}

// aclVersion asks a server what it is.
func aclVersion(t *testing.T, s *redistest.Server) string {
	t.Helper()
	for line := range strings.Lines(aclText(s.Do(t, "INFO", "server"))) {
		if version, ok := strings.CutPrefix(line, "redis_version:"); ok {
			return strings.TrimSpace(version)
		}
	}
	return ""
}

func aclText(message rueidis.RedisMessage) string {
	text, _ := message.ToString()
	return text
}

// requireNoDenial demands that no server has refused anything.
func (site *aclSite) requireNoDenial(t *testing.T) {
	t.Helper()
	for _, s := range append(slices.Clone(site.nodes), site.sentinels...) {
		log := s.Do(t, "ACL", "LOG")
		denied, err := log.ToArray()
		require.NoError(t, err)
		for _, message := range denied {
			entry, err := message.AsStrMap()
			require.NoError(t, err)
			require.Fail(t, "denied", "%s: %s %s by %s", entry["username"], entry["reason"], entry["object"], entry["context"])
		}
	}
}

func TestACL(t *testing.T) {
	t.Parallel()
	faultLong(t)
	sites := aclStart(t)
	seen := newACLSeen(sites[0])

	// What is used, by users who may do anything.
	for _, site := range sites {
		all := "reset on >" + aclPassword + " allkeys allchannels +@all"
		aclGrant(t, site.sentinels, "ACL SETUSER "+aclAtSentinel+" "+all)
		for _, role := range aclRoles {
			aclGrant(t, site.nodes, "ACL SETUSER "+role.name+" "+all)
			t.Run("seen/"+role.name+"/"+site.name, func(t *testing.T) {
				r := aclBegin(t, site, role.name)
				role.plays(r)
				r.end()
				seen.add(t, r)
			})
		}
		t.Run("seen/settings/"+site.name, func(t *testing.T) { seen.addSettings(t, site) })
	}
	t.Run("published", func(t *testing.T) {
		seen.requireComplete(t)
		if version := aclVersion(t, sites[0].nodes[0]); !strings.HasPrefix(version, "7.0.") {
			t.Skipf("the lines are written on Redis 7.0, this is %s", version)
		}
		aclPublish(t, seen.blocks(t, sites[0]))
	})
	if t.Failed() {
		return
	}

	// That it suffices, and for no more than that.
	published := aclReadBlocks(t)
	line := func(site *aclSite, user string) string {
		line := published[user]
		for word := range strings.FieldsSeq(aclAdded(t, published, aclLater)) {
			if _, known := site.commands[word[1:]]; known {
				line += " " + word
			}
		}
		return line
	}
	for _, site := range sites {
		for _, role := range aclRoles {
			t.Run("granted/"+role.name+"/"+site.name, func(t *testing.T) {
				aclGrant(t, site.sentinels, line(site, "sentinel"))
				aclGrant(t, site.nodes, line(site, role.name))
				r := aclBegin(t, site, role.name)
				role.plays(r)
				r.end()
				site.requireNoDenial(t)
			})
		}
	}
	site := sites[0]
	for _, role := range aclRoles {
		t.Run("refused/"+role.name, func(t *testing.T) {
			aclGrant(t, site.nodes, line(site, role.name))
			r := aclBegin(t, site, role.name)
			aclRefused(r)
			r.end()
		})
		t.Run("older/"+role.name, func(t *testing.T) {
			older := aclLineOf(t, published["redis-6.2"], role.name)
			for word := range strings.FieldsSeq(line(site, role.name)) { // what this server has besides
				if strings.HasPrefix(word, "+") && !slices.Contains(strings.Fields(older), word) {
					older += " " + word
				}
			}
			aclGrant(t, site.nodes, older)
			r := aclBegin(t, site, role.name)
			role.plays(r)
			r.end()
			site.requireNoDenial(t)
		})
	}
	t.Run("settings", func(t *testing.T) { aclTrySettings(t, sites, published, line) })
	t.Run("all queues", func(t *testing.T) {
		for _, role := range aclRoles[:2] {
			aclGrant(t, site.nodes, strings.ReplaceAll(line(site, role.name), aclBase, "bq:*:"))
		}
		aclTryQueues(t, site)
	})
	t.Run("two roles", func(t *testing.T) {
		aclGrant(t, site.nodes, line(site, "worker"))
		more := strings.Replace(published["producer"], "ACL SETUSER producer reset ", "ACL SETUSER worker ", 1)
		aclGrant(t, site.nodes, strings.Replace(more, " resetchannels ", " ", 1))
		r := aclBegin(t, site, "worker")
		aclWork(r)
		r.end()
		r = aclBegin(t, site, "worker")
		aclProduce(r)
		r.end()
		site.requireNoDenial(t)
	})
}

// aclTryQueues saves and runs a job of two queues.
func aclTryQueues(t *testing.T, site *aclSite) {
	t.Helper()
	r := aclBegin(t, site, "producer")
	producer := r.dial()
	defer producer.Close()
	r.user = "worker"
	worker := r.dial()
	defer worker.Close()
	for _, name := range []string{aclQueue, "other"} {
		from, err := beequeue.New(producer, name, beequeue.Config{})
		require.NoError(t, err)
		to, err := beequeue.New(worker, name, beequeue.Config{})
		require.NoError(t, err)
		job := from.CreateJob(name)
		require.NoError(t, job.Save(bounded(t)))
		running := process(t, to, 1, succeed)
		_, err = job.Wait(bounded(t))
		require.NoError(t, err)
		require.NoError(t, running.stop())
		r.all.close(from)
		r.all.close(to)
	}
	r.end()
	site.requireNoDenial(t)
}

// aclTrySettings dials with settings that need more, granted that.
func aclTrySettings(t *testing.T, sites []*aclSite, published map[string]string, line func(*aclSite, string) string) {
	t.Helper()
	for _, setting := range aclSettings {
		added := aclAdded(t, published, setting.what)
		for _, site := range sites {
			if site.cluster != nil && !setting.cluster {
				continue
			}
			if _, known := site.sentinelCommands[strings.TrimPrefix(added, "+")]; known {
				aclGrant(t, site.sentinels, line(site, "sentinel")+" "+added)
			}
			aclGrant(t, site.nodes, line(site, "observer")+" "+added)
			r := aclBegin(t, site, "observer")
			client := r.dial(setting.settle)
			require.NoError(t, r.open(client, beequeue.Config{}).Ready(bounded(t)))
			client.Close()
			r.end()
			site.requireNoDenial(t)
		}
	}
}

// aclAdded gives what is published as needed besides with a setting.
func aclAdded(t *testing.T, published map[string]string, what string) string {
	t.Helper()
	for line := range strings.Lines(published["settings"]) {
		if words, ok := strings.CutPrefix(line, "- "+what+": "); ok {
			return strings.TrimSpace(strings.ReplaceAll(words, "`", ""))
		}
	}
	require.Fail(t, "nothing is published for it", what)
	return ""
}

// aclBlock finds what stands between the marks of a block.
func aclBlock(text, name string) (begin, end int) {
	mark := "<!-- acl:" + name + " -->\n"
	begin = strings.Index(text, mark)
	if begin < 0 {
		return -1, -1
	}
	begin += len(mark)
	return begin, begin + strings.Index(text[begin:], "<!-- acl end -->")
}

// aclPublish demands that the documents say what was seen, or has them say so.
func aclPublish(t *testing.T, blocks map[string]string) {
	t.Helper()
	for _, file := range aclFiles {
		before, err := os.ReadFile(filepath.FromSlash(file))
		require.NoError(t, err)
		text := string(before)
		for _, name := range slices.Sorted(maps.Keys(blocks)) {
			begin, end := aclBlock(text, name)
			if begin < 0 {
				continue
			}
			if !*aclUpdate {
				require.Equal(t, blocks[name], text[begin:end], "%s: what is used is not what is published as %q; go test -run TestACL -update writes it", file, name)
			}
			text = text[:begin] + blocks[name] + text[end:]
		}
		if *aclUpdate {
			require.NoError(t, os.WriteFile(filepath.FromSlash(file), []byte(text), 0o600))
		}
	}
}

// aclReadBlocks gives what docs/acl.md publishes. A block that is one line of ACL
// SETUSER is that line.
func aclReadBlocks(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(aclFiles[0]))
	require.NoError(t, err)
	blocks := make(map[string]string)
	for _, match := range regexp.MustCompile(`<!-- acl:(\S+) -->`).FindAllStringSubmatch(string(text), -1) {
		begin, end := aclBlock(string(text), match[1])
		blocks[match[1]] = string(text)[begin:end]
		if lines := aclLines(blocks[match[1]]); len(lines) == 1 {
			blocks[match[1]] = lines[0]
		}
	}
	return blocks
}

// aclLines gives the lines of a block that make users.
func aclLines(block string) (lines []string) {
	for line := range strings.Lines(block) {
		if strings.HasPrefix(line, "ACL SETUSER ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func aclLineOf(t *testing.T, block, user string) string {
	t.Helper()
	for _, line := range aclLines(block) {
		if strings.HasPrefix(line, fmt.Sprintf("ACL SETUSER %s ", user)) {
			return line
		}
	}
	require.Fail(t, "no line", user)
	return ""
}
