// A worker in Go that keeps every rule of docs/protocol.md. Its tasks are in tasks.go. Needs
// github.com/jackc/pgx/v4 (v5 is the same).
package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgconn"
	"github.com/jackc/pgx/v4"
)

// Run is a run of a job; its context ends when it is to stop. As JSON it is what fail_jobs is told.
type Run struct {
	ID      int64  `json:"id"`
	Error   string `json:"error"`
	Rest    any    `json:"payload,omitempty"` // the failed elements of a batch
	Final   bool   `json:"final"`
	worker  string
	payload any
	ctx     context.Context
	stop    func()
	settled bool // the task has completed the job
}

var (
	background  = context.Background()
	concurrency = int(setting("CONFORMANCE_CONCURRENCY"))
	poll, grace = seconds(setting("CONFORMANCE_POLL_SECONDS")), seconds(setting("CONFORMANCE_GRACE_SECONDS"))
	names       = []string{}
)

func setting(name string) float64 { value, _ := strconv.ParseFloat(os.Getenv(name), 64); return value }

func seconds(number float64) time.Duration { return time.Duration(number * float64(time.Second)) }

// Worker calls the functions on one connection, and hears notifications on another.
type Worker struct {
	db      *pgx.Conn
	current string
	runs    map[string]map[int64]*Run // of each id that it has
	count   int
	server  any
	every   time.Duration
	events  chan any
}

func (w *Worker) once(sql string, args ...any) (found [][]any, err error) {
	if w.db == nil || w.db.IsClosed() {
		if w.db, err = pgx.Connect(background, os.Getenv("DATABASE_URL")); err != nil {
			return nil, err
		}
	}
	rows, err := w.db.Query(background, sql, args...)
	for err == nil && rows.Next() {
		var row []any
		row, err = rows.Values()
		found = append(found, row)
	}
	if err == nil {
		err = rows.Err()
	}
	return found, err
}

// call repeats a statement until there is an answer: to end something twice does no harm.
func (w *Worker) call(sql string, args ...any) [][]any {
	for {
		rows, err := w.once(sql, args...)
		if err == nil {
			return rows
		} else if !isLost(err) && !strings.Contains(err.Error(), "55P03") {
			panic(err)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

// isLost returns whether the connection is gone, or the server starts or shuts down.
func isLost(err error) bool {
	var told *pgconn.PgError
	return !errors.As(err, &told) || told.Code[:3] == "57P"
}

func (w *Worker) heartbeat() {
	server := w.server
	for id := range w.runs {
		w.sendHeartbeat(id, false)
	}
	if server != nil && server != w.server {
		w.renew()
	}
	w.call("select from graphile_worker.recover_dead_workers($1)", w.current)
}

func (w *Worker) sendHeartbeat(id string, isNew bool) {
	row := w.call(`select is_known, (extract(epoch from dead_after) / 3)::float8, pg_postmaster_start_time()::text
		from graphile_worker.heartbeat($1, $2)`, id, names)[0]
	w.every, w.server = seconds(row[1].(float64)), row[2]
	if row[0] == false && !isNew { // it was presumed dead: its jobs run elsewhere
		for _, run := range w.runs[id] {
			run.stop()
		}
		w.forget(id)
		if id == w.current {
			w.renew()
		}
	} else if id != w.current && len(w.runs[id]) == 0 {
		w.forget(id)
	}
}

func (w *Worker) forget(id string) {
	w.call("select graphile_worker.end_worker($1)", id)
	w.count -= len(w.runs[id])
	delete(w.runs, id)
}

// renew goes on under a new id, since the database may have jobs in the old one that are not known here.
func (w *Worker) renew() {
	old := w.current
	w.current = fmt.Sprintf("go-%d-%x", os.Getpid(), rand.Uint64())
	w.runs[w.current] = map[int64]*Run{}
	w.sendHeartbeat(w.current, true)
	held := []int64{}
	for id := range w.runs[old] {
		held = append(held, id)
	}
	w.call("select graphile_worker.return_unknown_jobs($1, $2)", old, held)
}

// fetch claims and starts jobs; it returns after what time there may be more.
func (w *Worker) fetch() time.Duration {
	for free := concurrency - w.count; free > 0; free = concurrency - w.count {
		rows, err := w.once(`select coalesce(json_agg(jobs), '[]'), coalesce(current_setting('graphile_worker.more', true), '')
			from graphile_worker.get_jobs($1, $2, $3) as jobs`, w.current, free, names)
		if err != nil {
			if isLost(err) {
				w.renew()
			} else {
				w.heartbeat() // it tells whether the worker was presumed dead
			}
			return 200 * time.Millisecond
		}
		jobs, more := rows[0][0].([]any), rows[0][1].(string)
		for _, job := range jobs {
			w.start(job.(map[string]any))
		}
		if wait, err := strconv.ParseFloat(more, 64); err == nil {
			return seconds(wait)
		} else if more != "true" && len(jobs) < free {
			return poll // "limited": the end of a job fetches again
		}
	}
	return poll
}

func (w *Worker) start(job map[string]any) {
	r := &Run{worker: w.current, ID: int64(job["id"].(float64)), payload: job["payload"]}
	r.ctx, r.stop = context.WithCancel(background)
	w.runs[r.worker][r.ID] = r
	w.count++
	go func() {
		if err := tasks[job["task_identifier"].(string)](r); err != nil {
			r.Error = err.Error()
		}
		w.events <- r
	}()
}

func (w *Worker) settle(r *Run) {
	if _, has := w.runs[r.worker][r.ID]; !has {
		return // it was cancelled, or runs elsewhere
	}
	delete(w.runs[r.worker], r.ID)
	w.count--
	if r.Error != "" {
		w.call("select from graphile_worker.fail_jobs($1, $2)", r.worker, []*Run{r})
	} else if !r.settled {
		w.call("select from graphile_worker.finish_jobs($1, array[$2::bigint])", r.worker, r.ID)
	}
}

func (w *Worker) review() {
	for id, runs := range w.runs {
		for _, row := range w.call("select job_id from graphile_worker.review_jobs($1)", id) {
			if run := runs[row[0].(int64)]; run != nil { // only jobs that were not started can be paused
				run.stop()
				w.settle(&Run{worker: id, ID: run.ID, Error: "cancelled", Final: true})
			}
		}
	}
}

func (w *Worker) listen() {
	for ; ; time.Sleep(200 * time.Millisecond) {
		db, err := pgx.Connect(background, os.Getenv("DATABASE_URL"))
		if err == nil {
			_, err = db.Exec(background, `listen "jobs:insert"; listen "jobs:control"`)
		}
		w.events <- "jobs:insert" // what came before is not told of
		for err == nil {
			var note *pgconn.Notification
			if note, err = db.WaitForNotification(background); err == nil {
				w.events <- note.Channel
			}
		}
	}
}

func main() {
	rand.Seed(time.Now().UnixNano())
	for name := range tasks {
		names = append(names, name)
	}
	w := &Worker{runs: map[string]map[int64]*Run{}, events: make(chan any, 1000)}
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	w.renew()
	go w.listen()
	heartbeats, reviews, leave := time.NewTimer(w.every), time.NewTicker(10*time.Second), make(<-chan time.Time)
	fetches, stopping := time.NewTimer(0), false
	for left := true; left && !(stopping && w.count == 0); {
		select {
		case <-heartbeats.C:
			w.heartbeat()
			heartbeats.Reset(w.every)
		case <-reviews.C:
			w.review()
		case <-fetches.C:
			if !stopping {
				fetches.Reset(w.fetch())
			}
		case <-stop:
			stopping, leave = true, time.After(grace)
		case <-leave:
			left = false
		case event := <-w.events:
			if run, ended := event.(*Run); ended {
				w.settle(run)
			}
			if event == "jobs:control" {
				w.review()
			} else {
				fetches.Reset(0)
			}
		}
	}
	for id := range w.runs {
		w.call("select graphile_worker.end_worker($1)", id) // returns what did not end
	}
}
