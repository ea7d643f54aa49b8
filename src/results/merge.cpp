#include "rometrace/results/merge.hpp"

#include <algorithm>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <queue>
#include <set>
#include <utility>

#include "results/file_lock.hpp"
#include "rometrace/error.hpp"
#include "rometrace/results/results_reader.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_line.hpp"

namespace rometrace {
namespace {

constexpr const char* kLeaveOut = "leave the file out, or run its shard again into a new one";

/// One file, at one of its lines.
class Source {
 public:
  explicit Source(const std::filesystem::path& path)
      : file_(InputFile::open(path, FileKind::kReadable)), reader_(open()) {}
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  /// Goes to the next line, or the first one. False at the end.
  bool advance() {
    if (line_) last_order_ = line_->order;
    line_ = reader_.next();
    return line_.has_value();
  }

  const ResultsHeader& header() const { return reader_.header(); }
  const std::string& label() const { return file_.label(); }
  const ResultsLine& line() const { return *line_; }
  std::int64_t last_order() const { return last_order_; }  ///< of the file's last line; known at its end
  bool torn() const { return reader_.torn(); }

 private:
  ResultsReader open() {
    if (!file_.is_regular()) return {file_.label(), kLeaveOut, read(), std::nullopt};
    lock_file(file_.descriptor(), LockKind::kReading, file_.label(), "wait for it to end");
    return {file_.label(), kLeaveOut, read(), file_.size()};
  }
  ResultsReader::Read read() {
    return [this](std::span<std::byte> buffer) { return file_.read(buffer); };
  }

  InputFile file_;
  ResultsReader reader_;
  std::optional<ResultsLine> line_;
  std::int64_t last_order_ = 0;
};

using Sources = std::vector<std::unique_ptr<Source>>;

void check_headers(const Sources& sources) {
  constexpr std::size_t kNamed = 3;
  const Source& first = *sources.front();
  for (const auto& source : std::span(sources).subspan(1)) {
    const auto differences = header_differences(source->header(), first.header(), ShardsMay::kDiffer);
    if (differences.empty()) continue;
    std::string words;
    for (const auto& difference : std::span(differences).first(std::min(kNamed, differences.size()))) {
      words += words.empty() ? ": was made with " : "; with ";
      words += difference.path + " " + difference.there + ", " + first.label() + " with " + difference.here;
    }
    throw Error(source->label() + words + "; expected results of the same settings; merge them apart");
  }
}

/// The header of the whole.
std::string merged_header(const ResultsHeader& header) {
  auto merged = nlohmann::ordered_json::parse(header.text);
  merged["shard"] = nullptr;
  return to_line(merged);
}

/// Collects the facts that no file has.
class Gaps {
 public:
  explicit Gaps(const Sources& sources) : sources_(sources) {
    for (const auto& source : sources) shards_ = std::max(shards_, source->header().shard.count);
  }

  /// The facts from `begin` to before `end` are missing.
  void add(std::int64_t begin, std::int64_t end) {
    for (std::int64_t order = begin; order < end && named_.size() < kNamed; ++order) named_.push_back(order);
    count_ += end - begin;
    // A stretch as long as the largest number of shards has a fact of each.
    const std::int64_t blamed = std::min({end - begin, shards_, kBlamed});
    for (std::int64_t order = begin; order < begin + blamed; ++order) blame(order);
  }

  bool empty() const { return count_ == 0; }

  /// "facts 3, 7 and 11 are missing (a.jsonl has nothing after fact 2; no file of shard 2/4 was given)". After all
  /// sources have been read.
  std::string in_words() const {
    std::string words = count_ == 1 ? "fact " : "facts ";
    for (std::size_t i = 0; i < named_.size(); ++i) {
      const bool is_last = i + 1 == named_.size() && count_ == std::int64_t(named_.size());
      words += i == 0 ? "" : is_last ? " and " : ", ";
      words += std::to_string(named_[i]);
    }
    const std::int64_t more = count_ - std::int64_t(named_.size());
    if (more > 0) words += " and " + std::to_string(more) + " more";
    words += count_ == 1 ? " is missing" : " are missing";
    std::string reasons;
    std::size_t given = 0;
    const auto add = [&](const std::string& reason) {
      constexpr std::size_t kReasons = 3;
      if (++given <= kReasons) reasons += (reasons.empty() ? "" : "; ") + reason;
      if (given == kReasons + 1) reasons += "; and others";
    };
    for (const std::size_t file : incomplete_) add(reason_of(*sources_[file]));
    for (const Shard& shard : absent_) add("no file of shard " + to_string(shard) + " was given");
    return words + (reasons.empty() ? "" : " (" + reasons + ")");
  }

 private:
  static constexpr std::size_t kNamed = 5;
  static constexpr std::int64_t kBlamed = 4096;  // facts of a gap that are looked at; enough to name a few reasons
  static constexpr std::size_t kAbsent = 16;

  void blame(std::int64_t order) {
    bool has_file = false;
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      const Shard& shard = sources_[i]->header().shard;
      if (!shard.holds(order)) continue;
      has_file = true;
      incomplete_.insert(i);
    }
    if (has_file || absent_.size() == kAbsent) return;
    const Shard shard{(order - 1) % shards_ + 1, shards_};
    if (std::find(absent_.begin(), absent_.end(), shard) == absent_.end()) absent_.push_back(shard);
  }

  static std::string reason_of(const Source& source) {
    const std::string torn = source.torn() ? " and is torn there" : "";
    if (source.last_order() == 0) return source.label() + " has no facts" + torn;
    const auto& header = source.header();
    const bool ends_early = source.last_order() + header.shard.count <= header.selected;
    return source.label() + (ends_early ? " ends after fact " + std::to_string(source.last_order()) + torn
                                        : " lacks facts before its end" + torn);
  }

  const Sources& sources_;
  std::int64_t shards_ = 1;          // the largest number of them that a header names
  std::vector<std::int64_t> named_;  // the first ones
  std::int64_t count_ = 0;
  std::set<std::size_t> incomplete_;  // files that should have had a missing fact
  std::vector<Shard> absent_;
};

/// Gives the lines of all files by order, and among equals by the files' own order.
class Queue {
 public:
  explicit Queue(const Sources& sources) : sources_(sources) {
    for (std::size_t i = 0; i < sources.size(); ++i) push(i);
  }

  bool empty() const { return heads_.empty(); }
  Source& top() const { return *sources_[heads_.top().second]; }
  void pop() {
    const std::size_t file = heads_.top().second;
    heads_.pop();
    push(file);
  }

 private:
  using Head = std::pair<std::int64_t, std::size_t>;  // order, file

  void push(std::size_t file) {
    if (sources_[file]->advance()) heads_.emplace(sources_[file]->line().order, file);
  }

  const Sources& sources_;
  std::priority_queue<Head, std::vector<Head>, std::greater<>> heads_;
};

}  // namespace

MergeReport merge_results(std::span<const std::filesystem::path> files, const MergeRules& rules,
                          const std::function<void(std::string_view)>& write, const std::stop_token& stop) {
  if (files.empty()) throw Error("merge: no files given; expected the results of a batch's shards");
  Sources sources;
  for (const auto& file : files) sources.push_back(std::make_unique<Source>(file));
  check_headers(sources);

  MergeReport report;
  report.selected = sources.front()->header().selected;
  write(merged_header(sources.front()->header()) + "\n");
  Gaps gaps(sources);
  std::int64_t next = 1;
  std::string status;  // of the line written last
  std::string writer;  // the file that it was in
  for (Queue queue(sources); !queue.empty(); queue.pop()) {
    if (stop.stop_requested()) throw Interrupted();
    const Source& source = queue.top();
    const ResultsLine& line = source.line();
    if (line.order < next) {
      const std::string where = source.label() + ": line " + std::to_string(line.number) + ": fact " +
                                std::to_string(line.order) + " is in " + writer + " as well";
      if (!rules.allow_overlaps) {
        throw Error(where +
                    "; expected each fact once; leave one of the files out, or give --allow-overlaps, which keeps "
                    "the lines of the file named first");
      }
      if (line.status != status) {
        throw Error(where + ", " + in_quotes(status) + " there and " + in_quotes(line.status) +
                    " here; expected the same; leave one of the files out");
      }
      ++report.overlaps;
      continue;
    }
    if (line.order > next) gaps.add(next, line.order);
    next = line.order + 1;
    status = line.status;
    writer = source.label();
    if (!gaps.empty() && !rules.allow_gaps) continue;  // all that is missing is counted, but nothing more is written
    write(escape_line_ends(line.text));  // of a version that did not
    write("\n");
    ++report.lines;
  }
  if (next <= report.selected) gaps.add(next, report.selected + 1);
  if (!gaps.empty()) report.missing = gaps.in_words();
  if (!gaps.empty() && !rules.allow_gaps) {
    throw Error(
        "merge: " + report.missing +
        "; run these shards again with the same command, which goes on where they stopped, or give --allow-gaps");
  }
  for (const auto& source : sources) {
    if (source->torn()) report.notes.push_back(source->label() + ": the end is torn; nothing of it was taken");
  }
  return report;
}

}  // namespace rometrace
