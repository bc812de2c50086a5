package wire

import (
	"strconv"
	"strings"
	"testing"
)

// payloads are data of jobs, named after their size: a flat object like those of most
// jobs, and a long one whose text is not all ASCII.
func payloads() map[string]string {
	var large strings.Builder
	large.WriteString(`{"rows":[`)
	for i := 0; large.Len() < 10_000-100; i++ {
		if i > 0 {
			large.WriteByte(',')
		}
		large.WriteString(`{"id":` + strconv.Itoa(1000*i) + `,"name":"Jörg Müller ` + strconv.Itoa(i) +
			`","note":"said \"soon\", and then nothing for a week","ok":true,"of":[1,2.5,null]}`)
	}
	large.WriteString(`]}`)
	return map[string]string{
		"100B": `{"to":"someone@example.org","template":"welcome","user":123456,"locale":"de","again":false,"cc":[]}`,
		"10kB": large.String(),
	}
}

// eachPayload runs a benchmark with a record of each size, as it was saved.
func eachPayload(b *testing.B, body func(b *testing.B, j *job, record string)) {
	b.Helper()
	for _, size := range []string{"100B", "10kB"} {
		record := `{"data":` + payloads()[size] +
			`,"options":{"timestamp":1732406400000,"stacktraces":[]},"status":"created","progress":0}`
		j, err := decode(record)
		if err != nil {
			b.Fatal(err)
		}
		b.Run(size, func(b *testing.B) {
			b.ReportAllocs()
			body(b, j, record)
		})
	}
}

func BenchmarkDecode(b *testing.B) {
	eachPayload(b, func(b *testing.B, _ *job, record string) {
		b.SetBytes(int64(len(record)))
		for b.Loop() {
			var j job
			r := j.record()
			if err := r.Decode(record); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	eachPayload(b, func(b *testing.B, j *job, record string) {
		b.SetBytes(int64(len(record)))
		for b.Loop() {
			if len(j.encode()) != len(record) {
				b.Fatal("it is not the record that was read")
			}
		}
	})
}

// The event of a job that succeeded has its result.
func BenchmarkEncodeEvent(b *testing.B) {
	eachPayload(b, func(b *testing.B, j *job, _ string) {
		for b.Loop() {
			_ = EncodeEvent("1234", "succeeded", j.Data)
		}
	})
}
