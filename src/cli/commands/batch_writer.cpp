#include "cli/commands/batch_writer.hpp"

#include <spdlog/spdlog.h>
#include <unistd.h>

#include "cli/commands/batch_work.hpp"
#include "cli/machine/terminal_info.hpp"
#include "rometrace/error.hpp"
#include "text/count_text.hpp"

namespace rometrace::cli {
namespace {

BatchProgress::Wish wish(bool quiet) {
  return quiet ? BatchProgress::Wish::kNever : BatchProgress::Wish::kShown;
}

BatchCounts counts_of(const ResultsDone& done, std::string_view verb) {
  BatchCounts counts;
  counts.verb = verb;
  for (const auto& [status, lines] : done.by_status) {
    (status == "skipped" ? counts.skipped : status == "failed" ? counts.failed : counts.traced) += lines;
  }
  return counts;
}

}  // namespace

std::optional<std::string> batch_output_path(const Options& options, const std::optional<Shard>& shard) {
  if (!options.output || *options.output == "-") {
    if (is_terminal(STDOUT_FILENO) && !options.json && !options.output) {
      throw Error("the results of a batch would go to the terminal; name a file with -o, or give --json");
    }
    return std::nullopt;
  }
  if (options.json) throw Error("--json: is for results on standard output; leave it out or -o");
  return shard ? shard_path(*options.output, *shard) : *options.output;
}

BatchWriter::BatchWriter(ResultsFile& file, const ResultsDone& done, std::int64_t total, std::string_view verb,
                         bool quiet, const std::stop_token& stop)
    : file_(file),
      resumes_(file.resumes()),
      last_order_(done.last_order),
      stop_(stop),
      progress_(wish(quiet), counts_of(done, verb), total) {
  counts_ = progress_.counts();
}

void BatchWriter::write(const BatchItem& item, Status status, std::string_view cause, const std::string& reason,
                        const std::string& line) {
  if (has(item)) return;
  // The stop is for the facts; but a reader that takes nothing must not keep us.
  file_.append(line, resumes_ ? std::stop_token() : stop_);
  count(counts_, status);
  if (!cause.empty()) ++causes_[std::string(cause)];
  if (status == Status::kFailed) failures_.add(progress_, reason);
  if (status == Status::kSkipped) spdlog::debug("skipped fact {}: {}", item.order, reason);
  progress_.update(counts_);
}

void say_what_is_there(const std::optional<std::string>& path, const ResultsDone& done, std::int64_t total) {
  if (done.dropped_bytes > 0) {
    spdlog::info("{}: an unfinished line of {} at the end was dropped", *path,
                 count_of(static_cast<std::int64_t>(done.dropped_bytes), "byte"));
  }
  if (done.lines > 0) {
    spdlog::info("{}: done already: {} of {}{}", *path, done.lines, count_of(total, "fact"),
                 done.lines < total ? "; going on" : "");
  }
}

void say_counts(const BatchWriter& writer, double seconds) {
  const auto& counts = writer.counts();
  auto text = count_of(counts.done(), "fact") + ": " + std::to_string(counts.traced) + " " + std::string(counts.verb);
  if (counts.skipped > 0) text += ", " + std::to_string(counts.skipped) + " skipped";
  if (counts.failed > 0) text += ", " + std::to_string(counts.failed) + " failed";
  if (!writer.causes().empty()) text += " (" + causes_text(writer.causes()) + ")";
  spdlog::info("{}; {:.{}f} s", text, seconds, seconds < 10 ? 1 : 0);
}

void say_interrupted(const BatchWriter& writer, const std::optional<std::string>& path, std::int64_t total) {
  const auto place = std::to_string(writer.counts().done()) + " of " + count_of(total, "fact");
  if (writer.resumes()) {
    spdlog::error("interrupted: {} are in {}; the same command goes on from there", place, *path);
  } else {
    spdlog::error("interrupted after {}", place);
  }
}

}  // namespace rometrace::cli
