# A worker in Ruby that keeps every rule of docs/protocol.md. Its tasks are those of
# `gw conformance`: put your own in TASKS. Needs the gem pg.

require "json"
require "pg"
require "securerandom"

POLL = ENV.fetch("CONFORMANCE_POLL_SECONDS", "2").to_f
GRACE = ENV.fetch("CONFORMANCE_GRACE_SECONDS", "5").to_f
CONCURRENCY = ENV.fetch("CONFORMANCE_CONCURRENCY", "4").to_i
URL = ENV.fetch("DATABASE_URL")

Run = Struct.new(:worker, :id, :payload, :stopped, :failure, :is_settled)

def report(event, run) = File.write(ENV.fetch("CONFORMANCE_REPORT"), "#{{ event: event, job: run.id }.to_json}\n", mode: "a")

def wait_for_gate(run)
  gate = run.payload["gate"]
  sleep 0.02 until gate.nil? || run.stopped || File.exist?(gate)
  raise "stopped" if run.stopped
end

# A task raises to fail its job. It may set run.failure, and run.is_settled if it has completed the job.
TASKS = {
  "run" => lambda do |run|
    report("start", run)
    wait_for_gate(run)
    raise run.payload["error"] if run.payload["error"]
    report("end", run)
  end,
  "batch" => lambda do |run|
    report("start", run)
    failed = run.payload.select { |element| element["fail"] }
    run.failure = { error: "#{failed.size} elements failed", payload: failed } unless failed.empty?
  end,
  # The job is completed in the transaction of its own writes: they are committed once, or not at all.
  "write" => lambda do |run|
    db = PG.connect(URL)
    db.transaction do
      db.exec_params("insert into conformance.effects values ($1)", [run.id])
      report("start", run)
      wait_for_gate(run)
      ended = db.exec_params("select done from graphile_worker.finish_jobs($1, array[$2::bigint])", [run.worker, run.id])
      raise "the job was lost" unless ended.getvalue(0, 0) == "t"
    end
    run.is_settled = true
    report("end", run)
  ensure
    db&.close
  end,
}

class Worker
  def initialize
    @events, @runs = Queue.new, {}
  end

  def new_id = "ruby-#{SecureRandom.hex(8)}".tap { |id| @runs[id] = {} } # the runs of each id, by job
  def clock = Process.clock_gettime(Process::CLOCK_MONOTONIC)
  def running = @runs.values.flat_map(&:values)
  def array(values) = PG::TextEncoder::Array.new.encode(values)
  def connected = @db.nil? || @db.finished? ? (@db = PG.connect(URL)) : @db

  # Calls until there is an answer: to end something twice does no harm.
  def call(sql, *args)
    connected.exec_params(sql, args).to_a
  rescue PG::LockNotAvailable
    retry
  rescue PG::Error => error
    raise unless lost?(error)
    @db = nil
    sleep 0.1
    retry
  end

  # Whether the connection is gone, or the server starts or shuts down.
  def lost?(error) = !error.is_a?(PG::ServerError) || error.result.error_field(PG::PG_DIAG_SQLSTATE).start_with?("57P")

  def heartbeat
    server = @server
    @runs.keys.each { |id| send_heartbeat(id) }
    renew if server && server != @server
    call("select from graphile_worker.recover_dead_workers($1)", @current)
  end

  def send_heartbeat(id, is_new: false)
    row = call(<<~SQL, id, array(TASKS.keys)).first
      select is_known, extract(epoch from dead_after) / 3 as every, pg_postmaster_start_time() as server
      from graphile_worker.heartbeat($1, $2)
    SQL
    @every, @server = row["every"].to_f, row["server"]
    if row["is_known"] == "f" && !is_new
      @runs[id].each_value { |run| run.stopped = true } # it was presumed dead: its jobs run elsewhere
      forget(id)
      renew if id == @current
    elsif id != @current && @runs[id].empty?
      forget(id)
    end
  end

  def forget(id)
    call("select graphile_worker.end_worker($1)", id)
    @runs.delete(id)
  end

  # Goes on under a new id, since the database may have jobs in this one that are not known here.
  def renew
    old, @current = @current, new_id
    send_heartbeat(@current, is_new: true)
    call("select graphile_worker.return_unknown_jobs($1, $2)", old, array(@runs[old].keys)) if @runs[old]
  end

  # Claims and starts jobs; returns after how many seconds there may be more.
  def fetch
    while (free = CONCURRENCY - running.size) > 0
      begin
        jobs = connected.exec_params("select * from graphile_worker.get_jobs($1, $2, $3)", [@current, free, array(TASKS.keys)]).to_a
        more = connected.exec("select current_setting('graphile_worker.more', true)").getvalue(0, 0)
      rescue PG::Error => error
        if lost?(error)
          @db = nil
          renew
        else
          heartbeat # it tells whether the worker was presumed dead
        end
        return 0.2
      end
      jobs.each { |job| start(job) }
      # "limited": the end of a job fetches again
      return more.to_f > 0 ? more.to_f : POLL unless more == "true" || jobs.size == free
    end
    POLL
  end

  def start(job)
    run = Run.new(@current, job["id"].to_i, JSON.parse(job["payload"]), false)
    @runs[@current][run.id] = run
    Thread.new do
      TASKS.fetch(job["task_identifier"]).call(run)
    rescue StandardError => error
      run.failure = { error: error.message }
    ensure
      @events << run
    end
  end

  def settle(run)
    return unless @runs[run.worker]&.delete(run.id) # else it was cancelled, or runs elsewhere
    return fail_job(run, run.failure) if run.failure
    call("select from graphile_worker.finish_jobs($1, array[$2::bigint])", run.worker, run.id) unless run.is_settled
  end

  def fail_job(run, failure) = call("select from graphile_worker.fail_jobs($1, $2)", run.worker, [{ id: run.id, **failure }].to_json)

  def review
    @runs.keys.each do |id|
      call("select * from graphile_worker.review_jobs($1)", id).each do |row|
        next unless (run = @runs[id].delete(row["job_id"].to_i)) # only jobs that were not started can be paused
        run.stopped = true
        fail_job(run, error: "cancelled", final: true)
      end
    end
  end

  def listen
    db = PG.connect(URL)
    db.exec('listen "jobs:insert"; listen "jobs:control"')
    @events << "jobs:insert" # what came before is not told of
    loop { db.wait_for_notify { |channel| @events << channel } }
  rescue PG::Error
    sleep 0.2
    retry
  end

  def work
    %w[TERM INT].each { |name| trap(name) { Thread.new { @events << "stop" } } }
    Thread.new { listen }
    Thread.new { loop { sleep(0.1) && @events << "tick" } }
    renew
    heartbeat_at = review_at = clock
    fetch_at, stop_at = 0.0, Float::INFINITY
    until (stop_at.finite? && running.empty?) || clock >= stop_at
      (heartbeat_at = clock) && heartbeat if clock - heartbeat_at >= @every
      (review_at = clock) && review if clock - review_at >= 10
      fetch_at = clock + fetch if clock >= fetch_at && stop_at.infinite?
      case event = @events.pop
      when "stop" then stop_at = [stop_at, clock + GRACE].min
      when "jobs:control" then review
      when Run then settle(event)
      end
      fetch_at = 0.0 if event == "jobs:insert" || event.is_a?(Run)
    end
    @runs.each_key { |id| call("select graphile_worker.end_worker($1)", id) } # returns what did not end
    exit!(0)
  end
end

Worker.new.work
