// The tasks of `gw conformance`: put your own here. A task returns the error that fails its job.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/jackc/pgx/v4"
)

type object = map[string]any

var tasks = map[string]func(*Run) error{"run": run, "batch": batch, "write": write}

func run(r *Run) error {
	report("start", r)
	if !opened(r) {
		return errors.New("stopped")
	} else if text, fails := r.payload.(object)["error"]; fails {
		return errors.New(text.(string))
	}
	report("end", r)
	return nil
}

func batch(r *Run) error {
	report("start", r)
	var failed []any
	for _, element := range r.payload.([]any) {
		if element.(object)["fail"] != nil {
			failed = append(failed, element)
		}
	}
	if failed == nil {
		return nil
	}
	r.Rest = failed
	return fmt.Errorf("%d elements failed", len(failed))
}

// The job is completed in the transaction of its own writes: they are committed once, or not at all.
func write(r *Run) error {
	db, err := pgx.Connect(r.ctx, os.Getenv("DATABASE_URL"))
	if err != nil {
		return err
	}
	defer db.Close(context.Background())
	err = db.BeginFunc(r.ctx, func(tx pgx.Tx) error {
		if _, err := tx.Exec(r.ctx, "insert into conformance.effects values ($1)", r.ID); err != nil {
			return err
		}
		report("start", r)
		done := opened(r)
		err := tx.QueryRow(r.ctx, "select done from graphile_worker.finish_jobs($1, array[$2::bigint])", r.worker, r.ID).Scan(&done)
		if err == nil && !done {
			err = errors.New("the job was lost")
		}
		return err
	})
	if r.settled = err == nil; r.settled {
		report("end", r)
	}
	return err
}

func report(event string, r *Run) {
	file, _ := os.OpenFile(os.Getenv("CONFORMANCE_REPORT"), os.O_APPEND|os.O_WRONLY, 0o644)
	fmt.Fprintf(file, "{\"event\": %q, \"job\": %d}\n", event, r.ID)
	file.Close()
}

func opened(r *Run) bool {
	gate, _ := r.payload.(object)["gate"].(string)
	for _, err := os.Stat(gate); gate != "" && err != nil && r.ctx.Err() == nil; _, err = os.Stat(gate) {
		time.Sleep(20 * time.Millisecond)
	}
	return r.ctx.Err() == nil
}
