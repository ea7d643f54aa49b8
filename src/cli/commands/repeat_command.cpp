#include "cli/commands/repeat_command.hpp"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "cli/exit_status.hpp"
#include "cli/files/file_system.hpp"
#include "cli/files/report_output.hpp"
#include "cli/options/option_values.hpp"
#include "cli/progress_bar.hpp"
#include "cli/session.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/report/record_comparison.hpp"
#include "rometrace/report/record_reader.hpp"
#include "rometrace/report/repeat_json.hpp"
#include "rometrace/report/result_file.hpp"
#include "rometrace/stopwatch.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/trace/clean_run.hpp"

namespace rometrace::cli {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kShownDigits = 12;  // of a fingerprint

std::string short_print(const std::string& sha256) {
  return sha256.substr(0, kShownDigits) + "...";
}

/// Throws Error unless the files are those that the batch was of, in whatever order.
void check_facts(const std::vector<std::string>& names, const Json* header, const std::string& file) {
  const auto sources = header == nullptr ? Json() : header->value(Json::json_pointer("/facts/files"), Json());
  if (!sources.is_array()) throw Error("--facts: " + file + " holds no batch, and names no facts files; leave it out");
  std::multiset<std::string> expected;
  for (const auto& source : sources) expected.insert(source.value("sha256", std::string()));
  for (const auto& name : names) {
    const auto found = named("--facts", [&] { return file_sha256(name); });
    const auto place = expected.find(found);
    if (place == expected.end()) {
      throw Error("--facts: " + label_of(name) + " has the fingerprint " + short_print(found) + ", which " + file +
                  " was not made of; expected the same file, unchanged");
    }
    expected.erase(place);
  }
  if (!expected.empty()) {
    throw Error("--facts: " + file + " was made of " + std::to_string(sources.size()) + " files, and " +
                std::to_string(names.size()) + " are given; give all of them");
  }
}

/// Runs records again, on the model that the first one names.
class Repeater {
 public:
  Repeater(const RepeatOptions& options, std::string file, std::stop_token stop)
      : options_(options), run_(options.run), file_(std::move(file)), stop_(std::move(stop)) {
    report_.file = file_;
  }

  void repeat(const TraceRecord& was, std::int64_t line, const std::string& where, bool special_tokens,
              const Progress& progress) {
    if (was.verdict.status == Status::kFailed) {
      auto& repeated = add(was, line);
      repeated.not_repeated = "it failed: " + was.verdict.reason;
      return;
    }
    if (model_ == nullptr) {
      begin(was, where);
    } else {
      check_same(was, where);
    }
    auto& repeated = add(was, line);
    const Stopwatch watch;
    try {
      repeated.comparison = compare(was, where, special_tokens, progress);
    } catch (const Interrupted&) {
      throw;
    } catch (const NotOfThisRun& problem) {
      throw Error(problem.what());
    } catch (const Error& error) {
      repeated.not_repeated = error.what();
    }
    repeated.seconds = watch.seconds();
    report_.run.seconds += repeated.seconds;
  }

  void facts_are_checked() { report_.facts_checked = true; }
  void set_version(const std::string& version) { report_.written_by = version; }
  const RepeatReport& report() const { return report_; }

 private:
  /// What no record can be repeated with.
  class NotOfThisRun : public Error {
   public:
    using Error::Error;
  };

  RepeatedRecord& add(const TraceRecord& was, std::int64_t line) {
    auto& repeated = report_.records.emplace_back();
    repeated.line = line;
    repeated.fact = was.fact;
    repeated.prompt = was.prompt.prompt;
    repeated.status = was.verdict.status;
    return repeated;
  }

  NamedFolder find_model(const TraceRecord& was) {
    if (run_.model) return locate_model(run_, stop_);
    run_.model = was.model.name;
    try {
      return locate_model(run_, stop_);
    } catch (const Interrupted&) {
      throw;
    } catch (const Error& error) {
      throw Error(file_ + ": was made with the model " + in_quotes(was.model.name) + ": " + error.what() +
                  "; --model says where it is");
    }
  }

  void begin(const TraceRecord& was, const std::string& where) {
    first_ = was;
    first_where_ = where;
    run_.dtype = was.run.dtype;
    run_.tf32 = was.run.tf32;
    if (!options_.device_given) run_.device = was.run.device_kind();
    report_.rounding =
        options_.tolerance ? Rounding::of_tolerance(*options_.tolerance) : Rounding::of_dtype(run_.dtype);
    edits_ = read_edits(run_);
    check_edits(was.model, where);
    const auto located = find_model(was);
    tokenizer_.emplace(Tokenizer::load(located.folder));
    model_ = load_model(run_, located.folder, edits_, stop_);
    WeightsHash hash(*model_, edits_, stop_);
    auto recorded = model_record(located.name, *model_, edits_);
    recorded.weights_sha256 = hash.get();
    if (recorded.weights_sha256 != was.model.weights_sha256) {
      throw Error(where + ": was made with weights of the fingerprint " + short_print(was.model.weights_sha256) + " (" +
                  in_quotes(was.model.name) + "), and " + in_quotes(located.name) + " has " +
                  short_print(recorded.weights_sha256) + "; --model names the same model");
    }
    workers_ = start_workers(run_, *model_, was.prompt.token_ids.size());
    model_->prepare(*workers_);
    report_.model = std::move(recorded);
    report_.run = run_record(run_, *model_);
    report_.run.threads = workers_->count();
  }

  void check_edits(const ModelRecord& model, const std::string& where) const {
    const auto marks = edits_.marks();
    const auto same = [](const EditMark& a, const EditMark& b) { return a.sha256 == b.sha256; };
    if (std::equal(marks.begin(), marks.end(), model.edits.begin(), model.edits.end(), same)) return;
    if (model.edits.empty()) {
      throw Error("--edit: " + where + " was made with a model without edits; leave it out");
    }
    std::string prints;
    for (const auto& edit : model.edits) prints += (prints.empty() ? "" : ", ") + short_print(edit.sha256);
    throw Error(where + ": was made with an edited model; expected --edit with the files of the fingerprints " +
                prints + ", in this order");
  }

  void check_same(const TraceRecord& was, const std::string& where) const {
    const auto refuse = [&](const char* what) {
      throw Error(where + ": has another " + what + " than " + first_where_ + "; repeat files of one run each");
    };
    if (was.model.weights_sha256 != first_.model.weights_sha256) refuse("model");
    if (was.run.dtype != first_.run.dtype || was.run.tf32 != first_.run.tf32) refuse("dtype");
    check_edits(was.model, where);
  }

  RecordComparison compare(const TraceRecord& was, const std::string& where, bool special_tokens,
                           const Progress& progress) {
    auto is = was;
    auto& asked = is.options;
    asked.precision.reset();  // as many draws as there were
    asked.samples = std::max<std::int64_t>(1, was.trace.samples);
    if (is.prompt.foil && *is.prompt.foil < 0) {
      throw Error("the file does not say the foil that its normalised logit difference is to");
    }
    find_moments(was, where, asked.corruption);
    const auto clean = run_clean(*model_, is.prompt, asked, stop_);
    is.trace = clean.trace;
    if (was.verdict.status == Status::kTraced) {
      constexpr std::array kEngines = {Engine::kSweep, Engine::kPlain, Engine::kGradient};
      const auto engine = std::find_if(kEngines.begin(), kEngines.end(),
                                       [&](Engine each) { return to_string(each) == was.run.engine; });
      run_.engine = engine == kEngines.end() ? Engine::kSweep : *engine;
      is.trace = trace_prompt(run_, *model_, is.prompt, asked, clean, *workers_, progress, stop_);
    }
    is.texts = token_texts(is.trace, is.prompt, *tokenizer_);
    const auto again = read_trace_record(to_json(is), where);
    auto comparison = compare_records(was, again, report_.rounding);
    if (const auto other = tokens_differ(was, special_tokens)) comparison.others.push_back(*other);
    return comparison;
  }

  /// What the tokeniser makes of the prompt, if that is not what was run.
  std::optional<std::string> tokens_differ(const TraceRecord& was, bool special_tokens) const {
    const auto special = special_tokens ? SpecialTokens::kParse : SpecialTokens::kAsText;
    try {
      if (ids_of(tokenizer_->encode_prompt(was.prompt.prompt, special)) == was.prompt.token_ids) return std::nullopt;
    } catch (const Error&) {  // as little the same
    }
    return "the model's tokeniser reads the prompt as other tokens (the file's were run)";
  }

  void find_moments(const TraceRecord& was, const std::string& where, CorruptionOptions& corruption) {
    if (!was.run.text) return;
    const auto rule = std::string(to_string(corruption.method)) + " " + was.run.noise_rule;
    auto found = moments_.find(rule);
    if (found == moments_.end()) {
      auto options = run_;
      options.method = corruption.method;
      options.noise = NoiseRule::parse(was.run.noise_rule);
      found = moments_.emplace(rule, read_corruption(options, *model_, *tokenizer_)).first;
    }
    const auto& text = found->second.text;
    if (!text || text->sha256 != was.run.text->sha256) {
      throw NotOfThisRun(where + ": its corruption is of the text " + in_quotes(was.run.text->name) +
                         " of the fingerprint " + short_print(was.run.text->sha256) + ", and " +
                         (text ? in_quotes(text->name) + " has " + short_print(text->sha256) : "there is none") +
                         "; --noise-text names the same file");
    }
    corruption.moments = found->second.corruption.moments;
  }

  const RepeatOptions& options_;
  Options run_;
  std::string file_;
  std::stop_token stop_;
  RepeatReport report_;
  TraceRecord first_;
  std::string first_where_;
  EditStack edits_;
  std::optional<Tokenizer> tokenizer_;
  std::shared_ptr<const Decoder> model_;
  std::unique_ptr<Workers> workers_;
  std::map<std::string, CorruptionChoice> moments_;
};

/// Records that a batch's file has if it is whole.
std::int64_t expected_records(const Json& header) {
  const auto selected = header.value(Json::json_pointer("/facts/selected"), std::int64_t{0});
  const auto parts = std::max<std::int64_t>(1, header.value(Json::json_pointer("/shard/count"), std::int64_t{1}));
  return (selected + parts - 1) / parts;
}

/// Repeats the records that are asked for.
void repeat_all(const RepeatOptions& options, ResultFile& file, Repeater& repeater) {
  auto wanted = std::set<std::string>(options.ids.begin(), options.ids.end());
  ProgressBar bar(options.run.quiet ? ProgressBar::Wish::kNever : ProgressBar::Wish::kOnTerminal);
  const auto progress = bar.callback();
  std::int64_t records = 0;
  while (const auto record = file.next()) {
    const auto* header = file.header();
    if (records++ == 0) {
      repeater.set_version(record->json.value("rometrace", std::string()));
      if (!options.facts.empty()) {
        check_facts(options.facts, header, file.label());
        repeater.facts_are_checked();
      }
    }
    const auto was = read_trace_record(record->json, record->where);
    if (!options.ids.empty() && (!was.fact || wanted.erase(was.fact->id) == 0)) continue;
    const auto* settings = file.settings_of(*record);
    const bool special_tokens = settings != nullptr && settings->value("special_tokens", false);
    const bool whole_batch = header != nullptr && options.ids.empty();
    repeater.repeat(was, record->line, record->where, special_tokens, whole_batch ? Progress() : progress);
    if (whole_batch && progress) progress(records, std::max(records, expected_records(*header)));
    if (!options.ids.empty() && wanted.empty()) break;
  }
  if (!file.torn().empty()) spdlog::warn("{}", file.torn());
  if (!wanted.empty()) throw Error("--ids: " + file.without_id(*wanted.begin()));
}

}  // namespace

int run_repeat(const RepeatOptions& options, const std::stop_token& stop) {
  check_not_output(options.file, options.run.output);
  ReportOutput output(options.run.output, options.run.json);
  ResultFile file(options.file, stop);
  Repeater repeater(options, file.label(), stop);
  repeat_all(options, file, repeater);
  const auto& report = repeater.report();
  if (report.records.empty()) throw Error(file.label() + ": holds no trace to repeat; expected records of facts");
  output.write(
      to_json(report), [&](const TerminalStyle& style) { return render_repeat(report, style); }, stop);
  const bool all_equal = std::all_of(report.records.begin(), report.records.end(), [](const RepeatedRecord& record) {
    return record.not_repeated ? record.status == Status::kFailed : record.comparison.equal();
  });
  return all_equal ? kDone : kSomeNotTraced;
}

}  // namespace rometrace::cli
