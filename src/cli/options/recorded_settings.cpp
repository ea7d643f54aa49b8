#include "cli/options/recorded_settings.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <string_view>
#include <utility>

#include "cli/files/share_dir.hpp"
#include "cli/options/option_values.hpp"
#include "cli/options/options.hpp"
#include "rometrace/error.hpp"
#include "rometrace/report/json.hpp"
#include "rometrace/report/record_reader.hpp"
#include "rometrace/report/result_file.hpp"
#include "rometrace/text/digest.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace::cli {
namespace {

using Json = nlohmann::ordered_json;

/// What the user's words say.
class GivenWords {
 public:
  explicit GivenWords(const std::vector<std::string>& words) {
    for (std::size_t i = 0; i < words.size() && words[i] != "--"; ++i) {
      const auto& word = words[i];
      if (!word.starts_with("--")) continue;
      const auto equals = word.find('=');
      const auto name = word.substr(0, equals);
      names_.insert(name);
      values_[name] = equals != std::string::npos ? word.substr(equals + 1) : i + 1 < words.size() ? words[i + 1] : "";
    }
  }

  bool has(const std::string& name) const { return names_.contains(name); }
  bool has_any(std::initializer_list<const char*> names) const {
    return std::any_of(names.begin(), names.end(), [&](const char* name) { return has(name); });
  }
  std::string value(const std::string& name) const {
    const auto found = values_.find(name);
    return found == values_.end() ? "" : found->second;
  }

 private:
  std::set<std::string> names_;
  std::map<std::string, std::string> values_;
};

/// Options of a record that do not go with one that was given.
struct Replaces {
  const char* given;
  std::vector<const char*> dropped;
};
const std::vector<Replaces>& replacements() {
  static const std::vector<Replaces> all = {
      {"--facts", {"--prompt", "--subject", "--subject-at", "--target", "--counter-subject", "--counter-prompt"}},
      {"--prompt", {"--subject-at", "--counter-prompt"}},
      {"--subject", {"--subject-at", "--counter-subject"}},
      {"--kinds", {"--sever"}},
      {"--corrupt", {"--counter-subject", "--counter-prompt"}},
      {"--counter-subject", {"--corrupt", "--counter-prompt"}},
      {"--counter-prompt", {"--corrupt", "--counter-subject"}},
      {"--target", {"--answer"}},
      {"--answer", {"--target"}},
      {"--neurons", {"--layers", "--top", "--rank-by", "--sets"}},
  };
  return all;
}

/// What a file has of a trace, or of all traces of a batch.
struct Source {
  std::string where;
  std::optional<TraceRecord> record;  ///< none: of a whole batch
  Json run;                           ///< as the record or the header has it
  Json settings;                      ///< likewise: kinds, windows, ...
  bool of_batch = false;
};

Json derived_settings(const TraceRecord& record) {
  Json settings = Json::object();
  add_settings(settings, record.options);
  settings["samples"] = record.options.samples;
  settings["targets"] = Json::array();
  // Files of before there were settings do not say whether an answer was given.
  const auto& trace = record.trace;
  if (trace.answer_ids.size() > 1 || trace.answer_id() != trace.prediction_id) {
    settings["targets"].push_back(record.texts.answer);
  }
  settings["answer"] = "token";
  settings["foil"] = record.texts.foil && !record.texts.foil->empty() ? Json(*record.texts.foil) : Json(nullptr);
  settings["special_tokens"] = false;
  return settings;
}

Source source_of(const ResultRecord& found, const ResultFile& file) {
  const auto* header = file.header();
  const auto* settings = file.settings_of(found);
  Source source;
  source.where = found.where;
  source.record = read_trace_record(found.json, found.where);
  source.of_batch = header != nullptr;
  source.run = header != nullptr ? header->at("run") : found.json.at("run");
  source.settings = settings != nullptr ? *settings : derived_settings(*source.record);
  return source;
}

Source find_source(const GivenWords& given) {
  const auto name = given.value("--from");
  if (name.empty()) throw Error("--from is empty; expected a file of results");
  return cli::named("--from", [&] {
    ResultFile file(name);
    const auto id = given.value("--id");
    const bool by_id = given.has("--id");
    std::optional<Source> found;
    std::int64_t records = 0;
    while (const auto record = file.next()) {
      if (records++ == 0 && file.header() != nullptr && given.has("--facts") && !by_id) {
        Source source;
        source.where = file.label();
        source.run = file.header()->at("run");
        source.settings = *file.header();
        source.of_batch = true;
        return source;
      }
      if (by_id) {
        const auto fact = record->json.find("fact");
        if (fact == record->json.end()) {
          throw Error(record->where + ": is a single trace, which has no id; leave --id out");
        }
        const auto found_id = fact->value("id", Json());
        if ((found_id.is_string() ? found_id.get<std::string>() : found_id.dump()) == id) {
          return source_of(*record, file);
        }
      } else if (found) {
        throw Error(file.label() + ": holds several traces; --id chooses one (or --facts takes the batch's settings)");
      } else {
        found = source_of(*record, file);
      }
    }
    if (by_id) throw Error(file.without_id(id));
    if (!found) throw Error(file.label() + ": holds no trace");
    return *std::move(found);
  });
}

std::string text_of(const Json& value) {
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string joined(const Json& list) {
  std::string text;
  for (const auto& each : list) text += (text.empty() ? "" : ",") + text_of(each);
  return text;
}

class Words {
 public:
  Words(const GivenWords& given, const Source& source) : given_(given), source_(source) {}

  CompletedLine line() {
    if (source_.record) add_prompt();
    add_model();
    add_method();
    add_neurons();
    add_corruption();
    add_answers();
    add_running();
    return std::move(line_);
  }

 private:
  const Json& setting(const char* name) const {
    static const Json none;
    const auto found = source_.settings.find(name);
    return found == source_.settings.end() ? none : *found;
  }

  const Json& of_run(const char* name) const {
    static const Json none;
    const auto found = source_.run.find(name);
    return found == source_.run.end() ? none : *found;
  }

  void add(const std::string& name, const std::optional<std::string>& value = std::nullopt) {
    if (given_.has(name)) return;
    for (const auto& [given, dropped] : replacements()) {
      const auto is_it = [&](const char* each) { return name == each; };
      if (given_.has(given) && std::any_of(dropped.begin(), dropped.end(), is_it)) return;
    }
    line_.recorded.push_back(value ? name + "=" + *value : name);
    line_.names.insert(name);
  }

  void add_unless(const std::string& name, const Json& value, const std::string& otherwise) {
    if (!value.is_null() && text_of(value) != otherwise) add(name, text_of(value));
  }

  void add_prompt() {
    const auto& prompt = source_.record->prompt;
    add("--prompt", prompt.prompt);
    add("--subject", prompt.subject);
    const bool first = prompt.prompt.find(prompt.subject) == prompt.subject_span.begin;
    if (!first || prompt.prompt.find("{}") != std::string::npos) {
      add("--subject-at", std::to_string(prompt.subject_span.begin) + ":" + std::to_string(prompt.subject_span.end));
    }
    if (setting("special_tokens") == true) add("--special-tokens");
  }

  void add_model() {
    const auto& model = source_.record ? to_json(source_.record->model) : setting("model");
    const auto name = model.value("name", std::string());
    if (given_.has("--model")) return;
    if (model.contains("edits") && !given_.has("--edit")) {
      throw Error("--from: " + source_.where +
                  ": was made with an edited model; give its edit files with --edit, or another --model");
    }
    if (name != kDemoName || std::getenv("ROMETRACE_MODEL") != nullptr) add("--model", name);
  }

  bool is_traced(const char* kind) const {
    const auto& kinds = setting("kinds");
    return std::find(kinds.begin(), kinds.end(), kind) != kinds.end();
  }

  void add_method() {
    Json kinds = Json::array(), severed = Json::array();
    for (const auto& kind : setting("kinds")) {
      if (kind == "state_mlp_severed" || kind == "state_attn_severed") {
        severed.push_back(kind == "state_mlp_severed" ? "mlp" : "attn");
      } else {
        kinds.push_back(kind);
      }
    }
    if (kinds.empty()) kinds.push_back("state");
    add_unless("--kinds", joined(kinds), joined(default_kinds()));
    const bool gradient = given_.value("--engine") == "gradient";
    if (!severed.empty() && !gradient) add("--sever", joined(severed));
    const bool only_neurons = kinds == Json::array({"neuron"});
    if (!only_neurons) add_unless("--positions", setting("positions"), to_string(defaults_.positions));
    if (is_traced("mlp") || is_traced("attn")) add_unless("--window", setting("window"), "");
    if (is_traced("head")) add_unless("--head-window", setting("head_window"), std::to_string(defaults_.head_window));
    if (is_traced("knockout")) add_unless("--knockout-window", setting("knockout_window"), "");
    add_unless("--direction", of_run("direction"), std::string(to_string(defaults_.direction)));
    if (text_of(of_run("engine")) != "transformers")
      add_unless("--engine", of_run("engine"), std::string(to_string(defaults_.engine)));
  }

  void add_neurons() {
    const auto& neurons = setting("neurons");
    if (!neurons.is_object()) return;
    const auto of = [&](const char* name) { return neurons.contains(name) ? neurons.at(name) : Json(nullptr); };
    if (setting("kinds") == Json::array({"neuron"}))
      add_unless("--positions", of("positions"), to_string(of_neurons_.positions));
    if (const auto given = of("given"); given.is_array() && !given.empty()) {
      Json names = Json::array();
      for (const auto& each : given) names.push_back(each.at(0).dump() + ":" + each.at(1).dump());
      add("--neurons", joined(names));
      return;
    }
    if (const auto layers = of("layers"); layers.is_array() && layers.size() == 2) {
      add("--layers", layers[0].dump() + "-" + std::to_string(layers[1].get<std::int64_t>() - 1));
    }
    add_unless("--top", of("top"), std::to_string(of_neurons_.top));
    add_unless("--rank-by", of("rank_by"), to_string(of_neurons_.ranking));
    add_unless("--sets", of("sets"), "");
  }

  void add_corruption() {
    const auto method = of_run("corruption").is_object() ? text_of(of_run("corruption").at("method")) : "noise";
    if (method == "noise") {
      add_unless("--samples",
                 source_.of_batch || !source_.run.contains("precision") ? of_run("samples") : setting("samples"),
                 std::to_string(defaults_.samples));
      add_noise();
    } else if (method != "tokens") {
      add("--corrupt", method);
    } else if (source_.record && source_.record->counter && !given_.has("--facts")) {
      const auto& counter = *source_.record->counter;
      counter.subject ? add("--counter-subject", *counter.subject) : add("--counter-prompt", counter.prompt);
    } else if (!source_.record || given_.has("--facts")) {
      add("--corrupt", "swap");
    }
    add_unless("--seed", of_run("seed"), std::to_string(defaults_.seed));
    const auto& precision = of_run("precision");
    if (precision.is_object() && given_.value("--engine") != "gradient") {
      add_unless("--precision", precision.at("asked"), "");
      add_unless("--most-samples", precision.at("most_samples"), std::to_string(defaults_.most_samples));
    }
    if (of_run("corruption").is_object() && of_run("corruption").contains("text")) need_text();
  }

  /// The very size of the noise, or for another model the rule that it was by.
  void add_noise() {
    const auto& noise = of_run("noise");
    if (!noise.is_object()) return;
    const auto rule = text_of(noise.at("rule"));
    const auto sigma = noise.value("sigma", Json());
    const bool by_rule = given_.has("--model") || sigma.is_null();
    add("--noise", by_rule ? rule : (rule.starts_with("u") ? "u" : "") + sigma.dump());
    if (noise.value("replace", false)) add("--replace");
  }

  void need_text() const {
    const auto& text = of_run("corruption").at("text");
    const auto name = text.value("name", std::string());
    if (given_.has_any({"--noise-text", "--noise", "--corrupt"})) return;
    if (text.value("sha256", std::string()) == file_sha256(share_dir() / "facts.json")) return;  // the default
    throw Error("--from: " + source_.where + ": its corruption is of the text " + in_quotes(name, 60) +
                "; give that file with --noise-text");
  }

  void add_answers() {
    const bool gradient = given_.value("--engine") == "gradient";
    if (!gradient && !setting("measures").empty()) add("--measures", joined(setting("measures")));
    if (source_.of_batch && !source_.record) {
      if (setting("target") == "object" && !given_.has_any({"--target", "--answer"})) {
        line_.recorded.emplace_back("--target=object");
        line_.names.insert("--target");
      }
      add_unless("--answer", setting("answer"), to_string(defaults_.answer));
      if (setting("all") == true) add("--all");
      if (const auto& only = setting("only"); only.is_object()) {
        add("--only", "known");
        add_unless("--known-by", only.at("known_by").at("rule"), to_string(KnownRule()));
      }
      if (setting("special_tokens") == true) add("--special-tokens");
      if (!setting("foil").is_null() && !gradient && !given_.has("--foil")) {
        throw Error("--from: " + source_.where +
                    ": its header has the foil as a token's id alone; give it with --foil");
      }
      return;
    }
    if (source_.of_batch) return add_answer_of_fact();
    for (const auto& target : setting("targets")) {
      if (given_.has("--target") || given_.has("--answer") || given_.has("--facts")) break;
      line_.recorded.push_back("--target=" + text_of(target));
      line_.names.insert("--target");
    }
    add_unless("--answer", setting("answer"), to_string(defaults_.answer));
    if (!gradient && !setting("foil").is_null()) add("--foil", text_of(setting("foil")));
  }

  /// What a fact's trace followed, for another trace of a prompt.
  void add_answer_of_fact() {
    const auto& record = *source_.record;
    const auto tokens = std::max<std::int64_t>(record.asked_tokens, std::ssize(record.trace.answer_ids));
    if (setting("target") == "object") {
      if (!given_.has("--prompt")) add("--target", record.texts.answer);
    } else if (setting("answer") == "object") {
      if (tokens > 1) add("--answer", "greedy:" + std::to_string(tokens));
    } else {
      add_unless("--answer", setting("answer"), to_string(defaults_.answer));
    }
    if (record.texts.foil && !record.texts.foil->empty() && !given_.has("--prompt")) add("--foil", *record.texts.foil);
  }

  void add_running() {
    auto device = text_of(of_run("device"));
    device.resize(std::min(device.size(), device.find(':')));  // another machine may have fewer GPUs
    if (device != defaults_.device) add("--device", device);
    add_unless("--dtype", of_run("dtype"), defaults_.dtype);
    if (of_run("tf32") == true) add("--tf32");
  }

  static Json default_kinds() {
    Json kinds = Json::array();
    for (const auto kind : TraceOptions().kinds) kinds.push_back(to_string(kind));
    return kinds;
  }

  const GivenWords& given_;
  const Source& source_;
  const Options defaults_;
  const NeuronOptions of_neurons_;
  CompletedLine line_;
};

}  // namespace

std::optional<CompletedLine> complete_from_record(const std::vector<std::string>& words) {
  const GivenWords given(words);
  if (!given.has("--from") || given.has_any({"--self-check", "--help", "--version"})) return std::nullopt;
  const auto source = find_source(given);
  try {
    return Words(given, source).line();
  } catch (const Json::exception&) {
    throw Error("--from: " + source.where + ": a header that lacks a setting; expected one that rometrace wrote");
  }
}

}  // namespace rometrace::cli
