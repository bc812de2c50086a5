package acl_test

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
	"github.com/gobeequeue/beequeue/internal/queuetest"
	"github.com/gobeequeue/beequeue/internal/redistest"
)

// docs/acl.md says which permissions of Redis the library needs. TestACL writes it from
// what the library was seen to use, and then tries it.

var update = flag.Bool("update", false, "TestACL writes what it saw into docs/acl.md and README.md")

// Names in the published lines.
const (
	queueName    = "push"
	keyBase      = "bq:{push}:"
	password     = "secret"
	sentinelUser = "queues" // the user at Sentinels
)

// Paths of the library and its documents, from the directory of this test.
var (
	publishedIn = []string{"../../docs/acl.md", "../../README.md"}
	libraryDirs = []string{"../..", "../../internal/store"}
)

// libraryFiles gives the library's files with that extension, without its tests.
func libraryFiles(t *testing.T, ext string) (files []string) {
	t.Helper()
	for _, dir := range libraryDirs {
		found, err := filepath.Glob(filepath.Join(filepath.FromSlash(dir), "*"+ext))
		require.NoError(t, err)
		files = append(files, found...)
	}
	files = slices.DeleteFunc(files, func(file string) bool { return strings.HasSuffix(file, "_test.go") })
	require.NotEmpty(t, files, "in %v", libraryDirs)
	return files
}

// allRoles are the roles that programs have.
var allRoles = []struct {
	name  string
	plays func(*roleRun)
}{
	{"producer", produce},
	{"worker", work},
	{"observer", observe},
	{"operator", operate},
}

// allSettings are settings of a client that need more permissions than Dial by itself.
var allSettings = []struct {
	what    string
	settle  func(*rueidis.ClientOption)
	cluster bool // it can be had on a cluster as well
}{
	{"a number of a database in the URL, such as `/1`", func(o *rueidis.ClientOption) { o.SelectDB = 1 }, false},
	{"`ClientOption.DisableCache` set back to false", func(o *rueidis.ClientOption) { o.DisableCache = false }, true},
	{"`ClientOption.AlwaysRESP2` with a `ClientName`", func(o *rueidis.ClientOption) { o.AlwaysRESP2, o.ClientName = true, "api" }, true},
}

// laterVersions heads the commands that the client sends to every server and Redis 7.0
// does not know.
const laterVersions = "Redis 7.2 or later"

// redisSite is Redis as programs may find it.
type redisSite struct {
	name             string
	url              string
	nodes            []*redistest.Server // all with data, replicas too
	sentinels        []*redistest.Server
	cluster          *redistest.Cluster
	all              rueidis.Client   // whose user may do anything
	clients          []rueidis.Client // of each of the nodes
	commands         commandTable
	sentinelCommands commandTable
}

// startSites starts one server, a cluster and a Sentinel, each with replicas.
func startSites(t *testing.T) []*redisSite {
	t.Helper()
	single := redistest.Start(t)
	replica := redistest.Start(t, "--replicaof", "127.0.0.1 "+strconv.Itoa(single.Port))
	cluster := redistest.StartCluster(t, redistest.Steady)
	sentinel := redistest.StartSentinel(t)
	sites := []*redisSite{
		{name: "redis", url: single.URL(), nodes: []*redistest.Server{single, replica}},
		{name: "cluster", url: cluster.URL(), nodes: cluster.Servers, cluster: cluster},
		{name: "sentinel", url: sentinel.URL(), nodes: sentinel.Servers, sentinels: sentinel.Sentinels},
	}
	for _, site := range sites {
		site.all = queuetest.Dial(t, site.url)
		for _, node := range site.nodes {
			site.clients = append(site.clients, node.Client(t))
		}
		site.commands = commandsOf(t, site.nodes[0])
		if site.sentinels != nil {
			site.sentinelCommands = commandsOf(t, site.sentinels[0])
		}
	}
	return sites
}

// grant makes a user on all servers, because Redis copies no users to a replica.
func grant(t *testing.T, servers []*redistest.Server, line string) {
	t.Helper()
	for _, s := range servers {
		require.Equal(t, "OK", textOf(s.Do(t, strings.Fields(line)...)), line)
		s.Do(t, "ACL", "LOG", "RESET")
	}
}

// versionOf asks a server what it is.
func versionOf(t *testing.T, s *redistest.Server) string {
	t.Helper()
	for line := range strings.Lines(textOf(s.Do(t, "INFO", "server"))) {
		if version, ok := strings.CutPrefix(line, "redis_version:"); ok {
			return strings.TrimSpace(version)
		}
	}
	return ""
}

func textOf(message rueidis.RedisMessage) string {
	text, _ := message.ToString()
	return text
}

// requireNoDenial requires that no server has refused anything.
func (site *redisSite) requireNoDenial(t *testing.T) {
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
	queuetest.SkipShort(t)
	sites := startSites(t)
	seen := newSightings(sites[0])

	// What is used, by users who may do anything.
	for _, site := range sites {
		all := "reset on >" + password + " allkeys allchannels +@all"
		grant(t, site.sentinels, "ACL SETUSER "+sentinelUser+" "+all)
		for _, role := range allRoles {
			grant(t, site.nodes, "ACL SETUSER "+role.name+" "+all)
			t.Run("seen/"+role.name+"/"+site.name, func(t *testing.T) {
				r := startRun(t, site, role.name)
				role.plays(r)
				r.end()
				seen.add(t, r)
			})
		}
		t.Run("seen/settings/"+site.name, func(t *testing.T) { seen.addSettings(t, site) })
	}
	t.Run("published", func(t *testing.T) {
		seen.requireComplete(t)
		if version := versionOf(t, sites[0].nodes[0]); !strings.HasPrefix(version, "7.0.") {
			t.Skipf("the lines are written on Redis 7.0, this is %s", version)
		}
		publish(t, seen.blocks(t, sites[0]))
	})
	if t.Failed() {
		return
	}

	// What is published suffices, and permits no more than that.
	published := readBlocks(t)
	line := func(site *redisSite, user string) string {
		line := published[user]
		for word := range strings.FieldsSeq(addedFor(t, published, laterVersions)) {
			if _, known := site.commands[word[1:]]; known {
				line += " " + word
			}
		}
		return line
	}
	for _, site := range sites {
		for _, role := range allRoles {
			t.Run("granted/"+role.name+"/"+site.name, func(t *testing.T) {
				grant(t, site.sentinels, line(site, "sentinel"))
				grant(t, site.nodes, line(site, role.name))
				r := startRun(t, site, role.name)
				role.plays(r)
				r.end()
				site.requireNoDenial(t)
			})
		}
	}
	site := sites[0]
	for _, role := range allRoles {
		t.Run("refused/"+role.name, func(t *testing.T) {
			grant(t, site.nodes, line(site, role.name))
			r := startRun(t, site, role.name)
			tryRefused(r)
			r.end()
		})
		t.Run("older/"+role.name, func(t *testing.T) {
			older := lineOf(t, published["redis-6.2"], role.name)
			for word := range strings.FieldsSeq(line(site, role.name)) { // what this server has besides
				if strings.HasPrefix(word, "+") && !slices.Contains(strings.Fields(older), word) {
					older += " " + word
				}
			}
			grant(t, site.nodes, older)
			r := startRun(t, site, role.name)
			role.plays(r)
			r.end()
			site.requireNoDenial(t)
		})
	}
	t.Run("settings", func(t *testing.T) { trySettings(t, sites, published, line) })
	t.Run("all queues", func(t *testing.T) {
		for _, role := range allRoles[:2] {
			grant(t, site.nodes, strings.ReplaceAll(line(site, role.name), keyBase, "bq:*:"))
		}
		tryQueues(t, site)
	})
	t.Run("two roles", func(t *testing.T) {
		grant(t, site.nodes, line(site, "worker"))
		more := strings.Replace(published["producer"], "ACL SETUSER producer reset ", "ACL SETUSER worker ", 1)
		grant(t, site.nodes, strings.Replace(more, " resetchannels ", " ", 1))
		r := startRun(t, site, "worker")
		work(r)
		r.end()
		r = startRun(t, site, "worker")
		produce(r)
		r.end()
		site.requireNoDenial(t)
	})
}

// tryQueues saves and runs a job of two queues.
func tryQueues(t *testing.T, site *redisSite) {
	t.Helper()
	r := startRun(t, site, "producer")
	producer := r.dial()
	defer producer.Close()
	r.user = "worker"
	worker := r.dial()
	defer worker.Close()
	for _, name := range []string{queueName, "other"} {
		from, err := beequeue.New(producer, name, beequeue.Config{})
		require.NoError(t, err)
		to, err := beequeue.New(worker, name, beequeue.Config{})
		require.NoError(t, err)
		job := from.CreateJob(name)
		require.NoError(t, job.Save(queuetest.Bounded(t)))
		running := queuetest.Process(t, to, 1, queuetest.Succeed)
		_, err = job.Wait(queuetest.Bounded(t))
		require.NoError(t, err)
		require.NoError(t, running.Stop())
		r.all.CloseQueue(from)
		r.all.CloseQueue(to)
	}
	r.end()
	site.requireNoDenial(t)
}

// trySettings dials with settings that need more, granted that.
func trySettings(t *testing.T, sites []*redisSite, published map[string]string, line func(*redisSite, string) string) {
	t.Helper()
	for _, setting := range allSettings {
		added := addedFor(t, published, setting.what)
		for _, site := range sites {
			if site.cluster != nil && !setting.cluster {
				continue
			}
			if _, known := site.sentinelCommands[strings.TrimPrefix(added, "+")]; known {
				grant(t, site.sentinels, line(site, "sentinel")+" "+added)
			}
			grant(t, site.nodes, line(site, "observer")+" "+added)
			r := startRun(t, site, "observer")
			client := r.dial(setting.settle)
			require.NoError(t, r.open(client, beequeue.Config{}).Ready(queuetest.Bounded(t)))
			client.Close()
			r.end()
			site.requireNoDenial(t)
		}
	}
}

// addedFor gives the permissions that are published for a setting.
func addedFor(t *testing.T, published map[string]string, what string) string {
	t.Helper()
	for line := range strings.Lines(published["settings"]) {
		if words, ok := strings.CutPrefix(line, "- "+what+": "); ok {
			return strings.TrimSpace(strings.ReplaceAll(words, "`", ""))
		}
	}
	require.Fail(t, "nothing is published for it", what)
	return ""
}

// findBlock finds the text between the marks of a block.
func findBlock(text, name string) (begin, end int) {
	mark := "<!-- acl:" + name + " -->\n"
	begin = strings.Index(text, mark)
	if begin < 0 {
		return -1, -1
	}
	begin += len(mark)
	return begin, begin + strings.Index(text[begin:], "<!-- acl end -->")
}

// publish requires that the documents say what was seen or, with -update, writes it there.
func publish(t *testing.T, blocks map[string]string) {
	t.Helper()
	for _, file := range publishedIn {
		before, err := os.ReadFile(filepath.FromSlash(file))
		require.NoError(t, err)
		text := string(before)
		for _, name := range slices.Sorted(maps.Keys(blocks)) {
			begin, end := findBlock(text, name)
			if begin < 0 {
				continue
			}
			if !*update {
				require.Equal(t, blocks[name], text[begin:end], "%s: what is used is not what is published as %q; go test ./test/acl -update writes it", file, name)
			}
			text = text[:begin] + blocks[name] + text[end:]
		}
		if *update {
			require.NoError(t, os.WriteFile(filepath.FromSlash(file), []byte(text), 0o600))
		}
	}
}

// readBlocks gives the blocks of docs/acl.md by name. A block with a single line of ACL
// SETUSER is given as that line.
func readBlocks(t *testing.T) map[string]string {
	t.Helper()
	text, err := os.ReadFile(filepath.FromSlash(publishedIn[0]))
	require.NoError(t, err)
	blocks := make(map[string]string)
	for _, match := range regexp.MustCompile(`<!-- acl:(\S+) -->`).FindAllStringSubmatch(string(text), -1) {
		begin, end := findBlock(string(text), match[1])
		blocks[match[1]] = string(text)[begin:end]
		if lines := userLines(blocks[match[1]]); len(lines) == 1 {
			blocks[match[1]] = lines[0]
		}
	}
	return blocks
}

// userLines gives the lines of a block that make users.
func userLines(block string) (lines []string) {
	for line := range strings.Lines(block) {
		if strings.HasPrefix(line, "ACL SETUSER ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

func lineOf(t *testing.T, block, user string) string {
	t.Helper()
	for _, line := range userLines(block) {
		if strings.HasPrefix(line, fmt.Sprintf("ACL SETUSER %s ", user)) {
			return line
		}
	}
	require.Fail(t, "no line", user)
	return ""
}
