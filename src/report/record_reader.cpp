#include "rometrace/report/record_reader.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "report/json_fields.hpp"
#include "rometrace/error.hpp"
#include "rometrace/summary/summary.hpp"
#include "rometrace/text/input_file.hpp"

namespace rometrace {
namespace {

using Json = nlohmann::ordered_json;
using Fields = JsonFields;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
constexpr std::int64_t kMostLayers = 100'000, kMostHeads = 100'000;  // sizes that their product does not overflow

constexpr std::array kGridKinds = {
    Kind::kState, Kind::kMlp, Kind::kAttn, Kind::kStateMlpSevered, Kind::kStateAttnSevered, Kind::kHead};
constexpr std::array kMeasures = {Measure::kLogProbability, Measure::kLogit, Measure::kLogitDifference,
                                  Measure::kNormalised,     Measure::kRank,  Measure::kKl};

class RecordReader {
 public:
  RecordReader(const Json& json, const std::string& where) : origin_{where}, fields_(json, origin_) {}

  TraceRecord read() {
    read_schema();
    read_verdict();
    if (fields_.find("fact") != nullptr) read_fact(fields_.object("fact"));
    read_model(fields_.object("model"));
    read_run(fields_.object("run"));
    if (record_.verdict.status == Status::kFailed) {
      record_.prompt.prompt = fields_.text_or("prompt", "");
      record_.prompt.subject = fields_.text_or("subject", "");
      return std::move(record_);
    }
    read_prompt();
    read_clean_run();
    record_.options.kinds.clear();
    if (record_.verdict.status == Status::kTraced) read_effects();
    if (fields_.find("settings") != nullptr) read_settings(fields_.object("settings"));
    return std::move(record_);
  }

 private:
  void read_schema() const {
    const auto schema = fields_.text("schema");
    if (schema != "rometrace/trace/1") {
      throw Error(origin_.where + ": a record of the schema " + in_quotes(schema, 60) +
                  "; expected rometrace/trace/1, as rometrace --prompt and --facts write it");
    }
  }

  void read_verdict() {
    auto& verdict = record_.verdict;
    verdict.status = fields_.choice("status", fields_.text("status"),
                                    std::array{Status::kTraced, Status::kSkipped, Status::kFailed});
    if (verdict.status == Status::kTraced) return;
    verdict.reason = fields_.text("reason");
    verdict.cause =
        fields_.choice("cause", fields_.text("cause"),
                       std::array{Cause::kOtherAnswer, Cause::kFirstToken, Cause::kNotKnown, Cause::kNoObject,
                                  Cause::kNoPartner, Cause::kRecord, Cause::kSubject, Cause::kPrompt, Cause::kTrace});
  }

  void read_fact(const Fields& fields) {
    auto& fact = record_.fact.emplace();
    fact.record = fields.whole("record");
    fact.order = fields.whole("order");
    if (const auto* id = fields.find("id")) {
      fact.id_is_number = id->is_number();
      fact.id = id->is_string() ? id->get<std::string>() : id->dump();
    }
    if (fields.find("relation") != nullptr) fact.relation = fields.text("relation");
    if (fields.find("object") != nullptr) fact.object = fields.text("object");
    if (fields.find("object_tokens") != nullptr) fact.object_tokens = fields.whole("object_tokens");
  }

  void read_model(const Fields& fields) {
    auto& model = record_.model;
    model.name = fields.text("name");
    model.architecture = fields.text("architecture");
    model.layers = fields.whole_up_to(kMostLayers, "layers");
    if (model.layers == 0) fields.of("layers").fail("is 0");
    model.width = fields.whole("width");
    model.heads = fields.whole("heads");
    model.parameters = fields.whole("parameters");
    model.weights_sha256 = fields.text("weights_sha256");
    if (fields.find("edits") == nullptr) return;
    for (const auto& edit : fields.list("edits")) {
      const Fields mark(edit, fields.origin(), fields.path_of("edits"));
      model.edits.push_back({mark.text("sha256"), mark.text("method"), mark.wholes("layers"), mark.whole("requests")});
    }
  }

  void read_run(const Fields& fields) {
    auto& run = record_.run;
    auto& options = record_.options;
    run.device = fields.text("device");
    run.dtype = fields.text("dtype");
    run.threads = static_cast<int>(fields.whole("threads"));
    run.engine = fields.text("engine");
    run.seconds = fields.number("seconds");
    run.tf32 = fields.flag("tf32", false);
    options.direction = fields.choice("direction", fields.text_or("direction", "denoising"),
                                      std::array{Direction::kDenoising, Direction::kNoising, Direction::kBoth});
    options.samples = fields.whole("samples");
    record_.trace.samples = options.samples;
    if (fields.find("precision") != nullptr) {
      const auto precision = fields.object("precision");
      options.precision = precision.number("asked");
      options.most_samples = precision.whole("most_samples");
      record_.trace.largest_error = precision.number("reached");
    }
    read_corruption(fields);
  }

  void read_corruption(const Fields& run) {
    auto& corruption = record_.options.corruption;
    const auto seed = run.whole("seed");
    if (seed > std::numeric_limits<std::uint32_t>::max()) run.of("seed").fail("is too large");
    corruption.seed = static_cast<std::uint32_t>(seed);
    if (run.find("corruption") != nullptr) {
      const auto fields = run.object("corruption");
      corruption.method = fields.choice("method", fields.text("method"),
                                        std::array{CorruptionMethod::kNoise, CorruptionMethod::kZero,
                                                   CorruptionMethod::kMean, CorruptionMethod::kTokens});
      if (fields.find("text") != nullptr) {
        const auto text = fields.object("text");
        record_.run.text = {text.text("name"), text.text("sha256"), text.whole("tokens")};
      }
    }
    if (run.find("noise") == nullptr) return;
    const auto noise = run.object("noise");
    record_.run.noise_rule = noise.text("rule");
    corruption.sigma = noise.find("sigma") == nullptr ? 0 : noise.number("sigma");
    corruption.replace = noise.flag("replace", false);
    try {
      const auto rule = NoiseRule::parse(record_.run.noise_rule);
      corruption.distribution = rule.distribution;
      corruption.degrees_of_freedom = rule.degrees_of_freedom;
    } catch (const Error&) {
      noise.of("rule").fail("is " + in_quotes(record_.run.noise_rule, 40) + ", which this version does not know");
    }
  }

  void read_prompt() {
    auto& prompt = record_.prompt;
    prompt.prompt = fields_.text("prompt");
    prompt.subject = fields_.text("subject");
    prompt.token_ids = fields_.ids("token_ids");
    for (const auto& bytes : fields_.list("token_bytes")) {
      record_.texts.prompt.push_back(fields_.bytes(bytes, "token_bytes"));
    }
    const auto T = prompt.token_ids.size();
    if (T == 0 || record_.texts.prompt.size() != T) fields_.of("token_bytes").fail("and token_ids are not as many");
    const auto [begin, end] = fields_.range("subject_range");
    if (begin == end || end > std::ssize(prompt.token_ids)) {
      fields_.of("subject_range").fail("is no part of the prompt");
    }
    prompt.subject_range = {static_cast<std::size_t>(begin), static_cast<std::size_t>(end)};
    if (fields_.find("subject_span") != nullptr) {
      const auto [first, last] = fields_.range("subject_span");
      prompt.subject_span = {static_cast<std::size_t>(first), static_cast<std::size_t>(last)};
      if (prompt.subject_span.end > prompt.prompt.size()) fields_.of("subject_span").fail("is beyond the prompt");
    } else if (const auto at = prompt.prompt.find(prompt.subject); at != std::string::npos) {
      prompt.subject_span = {at, at + prompt.subject.size()};
    }
    if (fields_.find("counter") != nullptr) read_counter(fields_.object("counter"));
  }

  void read_counter(const Fields& fields) {
    auto& counter = record_.counter.emplace();
    counter.prompt = fields.text("prompt");
    if (fields.find("subject") != nullptr) counter.subject = fields.text("subject");
    counter.token_ids = fields.ids("token_ids");
    if (counter.token_ids.size() != record_.prompt.token_ids.size()) {
      fields.of("token_ids").fail("are not as many as the prompt's");
    }
    record_.prompt.counter_ids = counter.token_ids;
    for (const auto& token : fields.list("tokens")) record_.texts.counter.push_back(fields.text(token, "tokens"));
    if (record_.texts.counter.size() != counter.token_ids.size()) {
      fields.of("tokens").fail("are not as many as its token_ids");
    }
  }

  void read_clean_run() {
    auto& trace = record_.trace;
    auto& texts = record_.texts;
    trace.tokens = std::ssize(record_.prompt.token_ids);
    trace.layers = record_.model.layers;
    texts.answer = fields_.bytes("answer_bytes");
    trace.answer_ids = fields_.has("answer_ids") ? fields_.ids("answer_ids") : std::vector{fields_.id("answer_id")};
    if (trace.answer_ids.empty()) fields_.of("answer_ids").fail("is empty");
    record_.prompt.target = trace.answer_ids;
    record_.asked_tokens = fields_.whole_or("answer_asked", std::ssize(trace.answer_ids));
    texts.prediction = fields_.bytes("prediction_bytes");
    trace.prediction_id = fields_.id("prediction_id");
    trace.prediction_score = fields_.number("prediction_score");
    trace.high_score = fields_.number("high_score");
    trace.low_score = trace.low_standard_error = kNone;
  }

  void read_effects() {
    auto& trace = record_.trace;
    trace.low_score = fields_.number("low_score");
    trace.low_standard_error = fields_.number("low_standard_error");
    read_what_is_measured();
    const auto grids = fields_.object("grids");
    for (const auto& [name, value] : grids.json().items()) {
      const auto kind = grids.choice(name.c_str(), name, kGridKinds);
      record_.options.kinds.push_back(kind);
      trace.grids.push_back(grid_of(kind, grids.object(name.c_str()), fields_));
    }
    if (fields_.find("noising") != nullptr) read_noising(fields_.object("noising"));
    if (fields_.find("knockout") != nullptr) read_knockout(fields_.object("knockout"));
    if (fields_.find("neurons") != nullptr) read_neurons(fields_.object("neurons"));
    if (!record_.options.precision) {
      trace.largest_error = std::isnan(trace.low_standard_error) ? 0 : trace.low_standard_error;
      for (const auto& grid : trace.grids) {
        for (const double error : grid.standard_error) trace.largest_error = std::fmax(trace.largest_error, error);
      }
      if (std::isnan(trace.low_standard_error)) trace.largest_error = kNone;
    }
  }

  /// Measures and other targets: what options, prompt and texts have of them, and the values of clean and corrupted
  /// run.
  void read_what_is_measured() {
    auto& options = record_.options;
    auto& prompt = record_.prompt;
    if (fields_.find("measures") != nullptr) {
      const auto measures = fields_.object("measures");
      for (const auto& [name, value] : measures.json().items()) {
        const auto measure = measures.choice(name.c_str(), name, kMeasures);
        options.measures.push_back(measure);
        const auto fields = measures.object(name.c_str());
        if (fields.find("foil_id") == nullptr) continue;
        prompt.foil = fields.id("foil_id");
        record_.texts.foil = fields.bytes("foil_bytes");
      }
      if (const auto normalised = find_measure(fields_, Measure::kNormalised);
          normalised && normalised->text("of") == to_string(Measure::kLogitDifference) && !prompt.foil) {
        prompt.foil = -1;  // of files that do not say which
        record_.texts.foil = "";
      }
    }
    if (fields_.find("other_targets") != nullptr) {
      for (const auto& each : fields_.list("other_targets")) {
        const Fields target(each, fields_.origin(), "other_targets");
        const auto ids = target.ids("target_ids");
        if (ids.size() != 1) target.of("target_ids").fail("is no single token");
        prompt.other_targets.push_back(ids.front());
        record_.texts.other_targets.push_back(target.bytes("target_bytes"));
      }
    }
    for (const auto& reading : readings_of(prompt, options)) {
      const auto fields = fields_of(fields_, reading);
      const char* high = reading.target > 0 ? "high_score" : "high";
      const char* low = reading.target > 0 ? "low_score" : "low";
      record_.trace.measured.push_back(
          {reading, fields.number(high), fields.number(low), fields.number("low_standard_error")});
    }
  }

  /// Of the record, or of what it has of noising.
  static std::optional<Fields> find_measure(const Fields& fields, Measure measure) {
    if (fields.find("measures") == nullptr) return std::nullopt;
    const auto measures = fields.object("measures");
    const std::string name(to_string(measure));
    if (measures.find(name.c_str()) == nullptr) return std::nullopt;
    return measures.object(name.c_str());
  }

  /// A logit difference that stands there as a normalised one alone is read as that, between 0 and 1.
  static Fields fields_of(const Fields& fields, const Reading& reading) {
    if (reading.target > 0) return fields.item("other_targets", reading.target - 1);
    if (const auto own = find_measure(fields, reading.measure)) return *own;
    if (const auto normalised = find_measure(fields, Measure::kNormalised)) return *normalised;
    fields.of("measures").fail("lacks " + std::string(to_string(reading.measure)));
  }

  /// `readings` has what was measured of the grid.
  CausalGrid grid_of(Kind kind, const Fields& fields, const Fields& readings) {
    auto& options = record_.options;
    CausalGrid grid;
    grid.kind = kind;
    grid.window = fields.whole("window");
    if (kind == Kind::kMlp || kind == Kind::kAttn) options.window = grid.window;
    if (kind == Kind::kHead) options.head_window = grid.window;
    if (fields.find("positions") != nullptr) {
      grid.positions = fields.wholes("positions");
    } else {
      for (std::int64_t t = 0; t < record_.trace.tokens; ++t) grid.positions.push_back(t);
    }
    if (grid.positions.empty()) fields.of("positions").fail("is empty");
    check_positions(fields, grid.positions);
    if (std::ssize(grid.positions) < record_.trace.tokens) {
      options.positions = {PositionRule::Which::kList, grid.positions};
    }
    if (kind == Kind::kHead) grid.heads = fields.whole_up_to(kMostHeads, "heads");
    const auto cells = cells_of(grid);
    grid.scores = fields.numbers("scores", cells);
    grid.standard_error = fields.numbers("standard_error", cells);
    const std::string name(to_string(kind));
    for (const auto& measured : record_.trace.measured) {
      const auto reading = fields_of(readings, measured.reading).object("grids").object(name.c_str());
      const char* values = measured.reading.target > 0 ? "scores" : "values";
      grid.measured.push_back({reading.numbers(values, cells), reading.find("standard_error") == nullptr
                                                                   ? std::vector<double>(cells, kNone)
                                                                   : reading.numbers("standard_error", cells)});
    }
    return grid;
  }

  void read_noising(const Fields& fields) {
    auto& trace = record_.trace;
    const auto grids = fields.object("grids");
    for (const auto& grid : trace.grids) {
      const std::string name(to_string(grid.kind));
      const auto of_grid = grids.object(name.c_str());
      trace.noising.push_back(grid_of(grid.kind, of_grid, fields));
      if (trace.noising.back().positions != grid.positions || trace.noising.back().heads != grid.heads) {
        of_grid.fail("has other positions or heads than when denoising");
      }
      trace.interaction.push_back({of_grid.numbers("interaction", grid.scores.size()),
                                   of_grid.numbers("interaction_standard_error", grid.scores.size())});
    }
  }

  void check_positions(const Fields& fields, const std::vector<std::int64_t>& positions) const {
    for (const auto position : positions) {
      if (position >= record_.trace.tokens) fields.of("positions").fail("has one beyond the prompt");
    }
  }

  std::size_t cells_of(const CausalGrid& grid) const {
    return grid.rows() * static_cast<std::size_t>(record_.trace.layers) * static_cast<std::size_t>(grid.heads);
  }

  void read_knockout(const Fields& fields) {
    record_.options.kinds.push_back(Kind::kKnockout);
    CausalGrid grid;
    grid.kind = Kind::kKnockout;
    grid.window = record_.options.knockout_window = fields.whole("window");
    const auto groups = fields.object("groups");
    const auto L = static_cast<std::size_t>(record_.trace.layers);
    for (const auto& [name, value] : groups.json().items()) {
      const auto known = std::find(kKnockoutGroups.begin(), kKnockoutGroups.end(), name);
      if (known == kKnockoutGroups.end()) groups.of(name.c_str()).fail("is no group that this version knows");
      const auto group = groups.object(name.c_str());
      const auto positions = group.wholes("positions");
      if (positions.empty()) group.of("positions").fail("is empty");
      check_positions(group, positions);
      grid.groups.push_back(
          {*known, {static_cast<std::size_t>(positions.front()), static_cast<std::size_t>(positions.back()) + 1}});
      const auto scores = group.numbers("scores", L);
      grid.scores.insert(grid.scores.end(), scores.begin(), scores.end());
    }
    grid.standard_error.assign(grid.scores.size(), kNone);
    grid.measured.assign(record_.trace.measured.size(), {});
    record_.trace.grids.push_back(std::move(grid));
  }

  void read_neurons(const Fields& fields) {
    auto& neurons = record_.trace.neurons.emplace();
    auto& options = record_.options.neurons.emplace();
    neurons.positions = fields.wholes("positions");
    check_positions(fields, neurons.positions);
    std::tie(neurons.layers.begin, neurons.layers.end) = fields.range("layers");
    const auto ranked_by = fields.text("ranked_by");
    neurons.given = ranked_by == "given";
    if (!neurons.given) {
      try {
        neurons.ranked_by = NeuronRule::parse(ranked_by);
      } catch (const Error&) {
        fields.of("ranked_by").fail("is " + in_quotes(ranked_by, 40) + ", which this version does not know");
      }
    }
    neurons.candidates = fields.whole("candidates");
    for (const auto& effect : fields.list("effects")) {
      neurons.effects.push_back(effect_of({effect, fields.origin(), "neurons.effects"}));
    }
    options.positions = {PositionRule::Which::kList, neurons.positions};
    options.layers = neurons.layers;
    options.top = std::max<std::int64_t>(1, std::ssize(neurons.effects));
    options.ranking = neurons.ranked_by;
    if (neurons.given) {
      options.layers.reset();
      for (const auto& effect : neurons.effects) {
        const NeuronName name{effect.layer, effect.neuron};
        if (std::find(options.given.begin(), options.given.end(), name) == options.given.end()) {
          options.given.push_back(name);
        }
      }
      return;
    }
    for (const auto& set : fields.list("sets")) {
      neurons.sets.push_back(set_of({set, fields.origin(), "neurons.sets"}));
    }
    options.sets_by_layer = fields.find("sets_by_layer") != nullptr;
    if (options.sets_by_layer) {
      for (const auto& set : fields.list("sets_by_layer")) {
        neurons.sets_by_layer.push_back(set_of({set, fields.origin(), "neurons.sets_by_layer"}));
      }
    }
    for (const auto& each : fields.list("controls")) {
      const Fields control(each, fields.origin(), "neurons.controls");
      const auto order = control.choice("order", control.text("order"),
                                        std::array{NeuronControl::Order::kChange, NeuronControl::Order::kRandom});
      neurons.controls.push_back({order, set_of(control)});
    }
    for (const auto& each : fields.list("half")) {
      const Fields half(each, fields.origin(), "neurons.half");
      neurons.half.push_back({position_of(half), layer_of(half), half.whole("candidates"), std::nullopt});
      if (half.find("neurons") != nullptr) neurons.half.back().neurons = half.whole("neurons");
    }
  }

  static std::optional<std::int64_t> layer_of(const Fields& fields) {
    return fields.find("layer") == nullptr ? std::nullopt : std::optional(fields.whole_up_to(kMostLayers, "layer"));
  }

  std::int64_t position_of(const Fields& fields) const {
    return fields.whole_up_to(record_.trace.tokens - 1, "position");
  }

  NeuronSet set_of(const Fields& fields) const {
    return {position_of(fields), layer_of(fields), fields.whole("neurons"), run_of(fields)};
  }

  NeuronEffect effect_of(const Fields& fields) {
    NeuronEffect effect;
    effect.layer = fields.whole_up_to(record_.trace.layers - 1, "layer");
    effect.position = position_of(fields);
    effect.neuron = fields.whole("neuron");
    effect.estimate = fields.number("estimate");
    effect.run = run_of(fields);
    const auto value = fields.object("value");
    effect.clean = value.number("clean");
    effect.corrupted = value.number("corrupted");
    effect.row_norm = fields.number("row_norm");
    effect.promotes = tokens_of(fields, "promotes");
    effect.suppresses = tokens_of(fields, "suppresses");
    return effect;
  }

  std::vector<TokenLogit> tokens_of(const Fields& fields, const char* name) {
    std::vector<TokenLogit> tokens;
    for (const auto& each : fields.list(name)) {
      const Fields token(each, fields.origin(), fields.path_of(name));
      tokens.push_back({token.id("id"), token.number("logit")});
      if (const auto bytes = token.bytes("token_bytes"); !bytes.empty()) {
        record_.texts.of_neurons.emplace(tokens.back().id, bytes);
      }
    }
    return tokens;
  }

  RunScore run_of(const Fields& fields) const {
    RunScore run{fields.number("score"), fields.number("standard_error"), {}};
    for (const auto& measured : record_.trace.measured) {
      const auto& reading = measured.reading;
      if (reading.target > 0) {
        const auto target = fields.item("other_targets", reading.target - 1);
        run.measured.push_back({target.number("score"), target.number("standard_error")});
        continue;
      }
      const auto measures = fields.object("measures");
      const std::string own(to_string(reading.measure)), normalised(to_string(Measure::kNormalised));
      const auto& name = measures.find(own.c_str()) != nullptr ? own : normalised;
      const auto value = measures.object(name.c_str());
      run.measured.push_back({value.number("value"), value.number("standard_error")});
    }
    return run;
  }

  void read_settings(const Fields& fields) {
    auto& options = record_.options;
    auto& asked = record_.asked.emplace();
    options.window = fields.whole("window");
    options.head_window = fields.whole("head_window");
    options.knockout_window = fields.whole("knockout_window");
    options.positions = parsed<PositionRule>(fields, fields.at("positions"), "positions");
    if (fields.find("neurons") != nullptr) {
      const auto neurons = fields.object("neurons");
      auto& of_neurons = options.neurons ? *options.neurons : options.neurons.emplace();
      of_neurons.positions = parsed<PositionRule>(neurons, neurons.at("positions"), "positions");
      if (neurons.find("layers") == nullptr) of_neurons.layers.reset();
      if (neurons.find("top") != nullptr) of_neurons.top = neurons.whole("top");
    }
    if (options.precision) options.samples = fields.whole("samples");
    asked.answer = parsed<AnswerRule>(fields, fields.at("answer"), "answer");
    for (const auto& target : fields.list("targets")) asked.targets.push_back(fields.text(target, "targets"));
    if (fields.find("foil") != nullptr) asked.foil = fields.text("foil");
    asked.special_tokens = fields.flag("special_tokens", false);
  }

  template <typename Rule>
  static Rule parsed(const Fields& fields, const Json& value, const char* name) {
    const auto text = fields.text(value, name);
    try {
      return Rule::parse(text);
    } catch (const Error&) {
      fields.of(name).fail("is " + in_quotes(text, 40) + ", which this version does not know");
    }
  }

  JsonOrigin origin_;
  Fields fields_;
  TraceRecord record_;
};

}  // namespace

TraceRecord read_trace_record(const Json& json, const std::string& where) {
  return RecordReader(json, where).read();
}

}  // namespace rometrace
