#include "rometrace/report/summary_result_reader.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>
#include <utility>
#include <vector>

#include "report/json_fields.hpp"

namespace rometrace {
namespace {

using SummaryJson = nlohmann::ordered_json;

constexpr std::array kSettings = {"dtype",     "seed",      "samples", "approximate",
                                  "direction", "precision", "noise",   "corruption"};  // that texts tell

class SummaryResultReader {
 public:
  SummaryResultReader(const SummaryJson& json, const std::string& where)
      : origin_{where, "the summary", "a summary"}, fields_(json, origin_) {}

  SummaryResult read() {
    const auto schema = fields_.text("schema");
    if (schema != "rometrace/summary/1") {
      throw Error(origin_.where + ": of the schema " + in_quotes(schema, 60) +
                  "; expected rometrace/summary/1, as rometrace summary writes it of traces");
    }
    SummaryResult result;
    for (const auto& file : fields_.list("files")) result.files.push_back(fields_.text(file, "files"));
    result.model = fields_.at("model");
    result.run = run();
    for (const auto& facts : fields_.list("facts")) result.selections.push_back(selection_of(fields_, facts));
    result.records = fields_.whole("records");
    const auto status = fields_.object("status");
    result.traced = status.whole("traced");
    result.skipped = status.whole("skipped");
    result.failed = status.whole("failed");
    const auto causes = fields_.object("causes");
    for (const auto& [name, count] : causes.json().items()) result.causes[name] = causes.whole(name.c_str());
    result.torn_lines = fields_.whole_or("torn_lines", 0);
    for (const auto& warning : fields_.list("warnings")) result.warnings.push_back(fields_.text(warning, "warnings"));
    const auto bootstrap = fields_.object("bootstrap");
    result.config.replicates = bootstrap.whole("replicates");
    result.config.seed = static_cast<std::uint32_t>(bootstrap.whole_up_to(UINT32_MAX, "seed"));
    result.overall = group_of(fields_.object("overall"));
    if (fields_.find("by") == nullptr) return result;
    result.config.by_relation = true;
    const auto relations = fields_.object("by").object("relation");
    for (const auto& [name, value] : relations.json().items()) {
      const auto fields = relations.object(name.c_str());
      result.relations.emplace_back(name, group_of(fields));
      if (result.relations.back().second.facts == 0) fields.of("facts").fail("is 0");
    }
    return result;
  }

 private:
  /// The settings, all that are told among them.
  SummaryJson run() const {
    auto run = fields_.object("run").json();
    for (const auto* name : kSettings) {
      if (!run.contains(name)) run[name] = nullptr;
    }
    const auto complete = [&](const char* name, std::initializer_list<const char*> members) {
      if (run[name].is_null()) run[name] = SummaryJson::object();
      if (!run[name].is_object()) fields_.object("run").of(name).fail("is no object");
      for (const auto* member : members) {
        if (!run[name].contains(member)) run[name][member] = nullptr;
      }
    };
    complete("corruption", {"method"});
    complete("noise", {"rule", "sigma"});
    if (!run["precision"].is_null()) complete("precision", {"asked"});
    return run;
  }

  static SelectionSummary selection_of(const JsonFields& fields, const SummaryJson& json) {
    const JsonFields facts(json, fields.origin(), fields.path_of("facts"));
    SelectionSummary selection{json, facts.whole("selected"), facts.whole("lines")};
    selection.facts.erase("lines");
    return selection;
  }

  /// NaN for null.
  static double number_of(const JsonFields& fields, const char* name, const SummaryJson& json) {
    constexpr double kLargest = 1e15;  // that tables have room for
    const double value = fields.number(json, name);
    if (std::abs(value) > kLargest) fields.of(name).fail("is too large a number");
    return value;
  }

  static std::optional<double> optional_number(const JsonFields& fields, const char* name) {
    const auto* value = fields.find(name);
    return value == nullptr ? std::nullopt : std::optional(number_of(fields, name, *value));
  }

  static double share_of(const JsonFields& fields, const char* name) {
    const double share = fields.number(name);
    if (!(share >= 0 && share <= 1)) fields.of(name).fail("is no share from 0 to 1");
    return share;
  }

  static std::optional<Bounds> bounds_of(const JsonFields& fields, const char* name) {
    if (fields.find(name) == nullptr) return std::nullopt;
    const auto& ends = fields.list(name);
    if (ends.size() != 2) fields.of(name).fail("is no pair of numbers");
    return Bounds{number_of(fields, name, ends[0]), number_of(fields, name, ends[1])};
  }

  static Estimate estimate_of(const JsonFields& fields) {
    return {fields.whole("n"), optional_number(fields, "mean"), optional_number(fields, "standard_error"),
            bounds_of(fields, "normal"), bounds_of(fields, "bootstrap")};
  }

  /// One that has a mean.
  static Estimate known_estimate(const JsonFields& fields) {
    auto estimate = estimate_of(fields);
    if (!estimate.mean) fields.of("mean").fail("is missing");
    return estimate;
  }

  /// [L], or [L][heads] where there are heads; empty for null.
  static std::vector<double> list_of(const JsonFields& fields, const char* name, std::int64_t heads) {
    std::vector<double> values;
    if (fields.find(name) == nullptr) return values;
    for (const auto& layer : fields.list(name)) {
      if (heads == 0) {
        values.push_back(number_of(fields, name, layer));
        continue;
      }
      if (!layer.is_array() || std::ssize(layer) != heads) fields.of(name).fail("is no list of lists of heads");
      for (const auto& head : layer) values.push_back(number_of(fields, name, head));
    }
    return values;
  }

  /// A list that is as long as what it belongs to, or empty.
  static std::vector<double> list_beside(const JsonFields& fields, const char* name, std::int64_t heads,
                                         std::size_t size) {
    auto values = list_of(fields, name, heads);
    if (!values.empty() && values.size() != size) fields.of(name).fail("is not as long as what it belongs to");
    return values;
  }

  static void read_bars(ErrorBars& bars, const JsonFields& fields, std::int64_t heads, std::size_t size) {
    bars.standard_error = list_beside(fields, "standard_error", heads, size);
    bars.normal_low = list_beside(fields, "normal_low", heads, size);
    bars.normal_high = list_beside(fields, "normal_high", heads, size);
    bars.bootstrap_low = list_beside(fields, "bootstrap_low", heads, size);
    bars.bootstrap_high = list_beside(fields, "bootstrap_high", heads, size);
    if (bars.normal_low.size() != bars.normal_high.size()) fields.of("normal_high").fail("is missing");
    if (bars.bootstrap_low.size() != bars.bootstrap_high.size()) fields.of("bootstrap_high").fail("is missing");
  }

  static void read_effects(EffectSummary& effects, const JsonFields& fields, std::int64_t heads) {
    effects.facts = fields.whole("facts");
    effects.tokens = fields.whole("tokens");
    effects.aie = list_of(fields, "aie", heads);
    read_bars(effects, fields, heads, effects.aie.size());
    if (fields.find("peak") == nullptr) return;
    const auto peak = fields.object("peak");
    const auto layers = std::ssize(effects.aie) / std::max<std::int64_t>(1, heads);
    auto& found = effects.peak.emplace();
    found.layer = peak.whole_up_to(layers - 1, "layer");
    if (heads > 0) found.head = peak.whole_up_to(heads - 1, "head");
    found.aie = number_of(peak, "aie", peak.at("aie"));
    if (peak.find("share") != nullptr) found.share = share_of(peak, "share");
    if (peak.find("layers") != nullptr) found.layers = peak.range("layers");
  }

  template <typename Roles, typename Read>
  static void read_roles(Roles& roles, const JsonFields& fields, const Read& read) {
    const auto all = fields.object("roles");
    for (const auto role : kRoles) {
      read(roles[static_cast<std::size_t>(role)], all.object(std::string(to_string(role)).c_str()));
    }
  }

  static KindSummary kind_of(const std::string& name, const JsonFields& fields) {
    KindSummary kind;
    kind.kind = name;
    kind.window = fields.whole("window");
    kind.heads = fields.whole_or("heads", 0);
    kind.largest_score = estimate_of(fields.object("largest_score"));
    kind.largest_effect = estimate_of(fields.object("largest_effect"));
    read_roles(kind.roles, fields, [&](RoleSummary& role, const JsonFields& found) {
      read_effects(role, found, kind.heads);
      role.score = list_beside(found, "score", kind.heads, role.aie.size());
      role.largest_score = estimate_of(found.object("largest_score"));
      role.largest_effect = estimate_of(found.object("largest_effect"));
    });
    return kind;
  }

  static InteractionSummary interaction_of(const std::string& name, const JsonFields& fields) {
    InteractionSummary interaction;
    interaction.kind = name;
    interaction.window = fields.whole("window");
    interaction.heads = fields.whole_or("heads", 0);
    read_roles(interaction.roles, fields, [&](EffectSummary& role, const JsonFields& found) {
      role.facts = found.whole("facts");
      role.tokens = found.whole("tokens");
      role.aie = list_of(found, "interaction", interaction.heads);
      read_bars(role, found, interaction.heads, role.aie.size());
    });
    return interaction;
  }

  static KnockoutSummary knockout_of(const JsonFields& fields) {
    KnockoutSummary knockout;
    knockout.window = fields.whole("window");
    const auto groups = fields.object("groups");
    for (std::size_t i = 0; i < kKnockoutGroups.size(); ++i) {
      const auto found = groups.object(std::string(kKnockoutGroups[i]).c_str());
      auto& group = knockout.groups[i];
      group.facts = found.whole("facts");
      group.relative_change = list_of(found, "relative_change", 0);
      read_bars(group, found, 0, group.relative_change.size());
    }
    return knockout;
  }

  static ReadingSummary reading_of(const JsonFields& fields) {
    ReadingSummary reading;
    if (fields.find("target") != nullptr) reading.target = fields.text("target");
    if (fields.find("of") != nullptr) reading.of = fields.text("of");
    reading.facts = fields.whole("facts");
    reading.not_numbers = fields.whole("not_numbers");
    reading.high = estimate_of(fields.object("high"));
    reading.low = estimate_of(fields.object("low"));
    reading.total_effect = estimate_of(fields.object("total_effect"));
    const auto kinds = fields.object("kinds");
    for (const auto& [name, value] : kinds.json().items()) {
      const auto found = kinds.object(name.c_str());
      auto& kind = reading.kinds.emplace_back();
      kind.kind = name;
      kind.window = found.whole("window");
      kind.heads = found.whole_or("heads", 0);
      read_roles(kind.roles, found, [&](ReadingSummary::Role& role, const JsonFields& values) {
        role.facts = values.whole("facts");
        role.tokens = values.whole("tokens");
        role.value = list_of(values, "value", kind.heads);
        role.effect = list_beside(values, "effect", kind.heads, role.value.size());
        read_bars(role, values, kind.heads, role.value.size());
      });
    }
    return reading;
  }

  static NeuronOverlap overlap_of(const JsonFields& fields) {
    NeuronOverlap overlap{fields.whole("pairs"), optional_number(fields, "shared"), optional_number(fields, "share"),
                          optional_number(fields, "chance")};
    if (overlap.share && !overlap.chance) fields.of("chance").fail("is missing");
    return overlap;
  }

  static NeuronCurve curve_of(const JsonFields& fields, std::size_t sizes) {
    NeuronCurve curve;
    curve.effect = list_of(fields, "effect", 0);
    if (curve.effect.size() != sizes) fields.of("effect").fail("is not as long as the sizes");
    read_bars(curve, fields, 0, sizes);
    return curve;
  }

  static void read_neuron_role(NeuronRoleSummary& role, const JsonFields& fields, bool given) {
    role.facts = fields.whole("facts");
    role.tokens = fields.whole("tokens");
    role.told = number_of(fields, "told", fields.at("told"));
    role.distinct = fields.whole("distinct");
    for (const auto& each : fields.list("best")) {
      const JsonFields best(each, fields.origin(), fields.path_of("best"));
      role.best.push_back({best.whole("layer"), best.whole("neuron"), best.whole("facts"), share_of(best, "share"),
                           known_estimate(best.object("indirect_effect")), best.text("promotes")});
    }
    if (given) return;
    const auto overlap = fields.object("overlap");
    role.same_relation = overlap_of(overlap.object("same_relation"));
    role.same_subject = overlap_of(overlap.object("same_subject"));
    role.neither = overlap_of(overlap.object("neither"));
    if (fields.find("neurons") != nullptr) role.sizes = fields.wholes("neurons");
    role.sets = curve_of(fields.object("sets"), role.sizes.size());
    const auto controls = fields.object("controls");
    role.change = curve_of(controls.object("change"), role.sizes.size());
    role.random = curve_of(controls.object("random"), role.sizes.size());
    const auto half = fields.object("half");
    role.half = {half.whole("tokens"), half.whole("none"), estimate_of(half.object("share")),
                 optional_number(half, "median")};
    if (role.half.median && !role.half.share.mean) half.of("share").fail("has no mean");
  }

  static NeuronSummary neurons_of(const JsonFields& fields) {
    NeuronSummary neurons;
    neurons.candidates = fields.whole("candidates");
    const auto first = fields.object("roles").object(std::string(to_string(kRoles.front())).c_str());
    neurons.given = !first.has("overlap");
    read_roles(neurons.roles, fields,
               [&](NeuronRoleSummary& role, const JsonFields& found) { read_neuron_role(role, found, neurons.given); });
    return neurons;
  }

  static GroupSummary group_of(const JsonFields& fields) {
    GroupSummary group;
    group.facts = fields.whole("facts");
    const auto read = group.facts > 0 ? &known_estimate : &estimate_of;
    group.high_score = read(fields.object("high_score"));
    group.low_score = read(fields.object("low_score"));
    group.total_effect = read(fields.object("total_effect"));
    const auto kinds = fields.object("kinds");
    for (const auto& [name, value] : kinds.json().items()) {
      group.kinds.push_back(kind_of(name, kinds.object(name.c_str())));
    }
    if (fields.find("noising") != nullptr) {
      const auto noising = fields.object("noising");
      for (const auto& [name, value] : noising.json().items()) {
        group.noising.push_back(kind_of(name, noising.object(name.c_str())));
      }
    }
    if (fields.find("interactions") != nullptr) {
      const auto interactions = fields.object("interactions");
      for (const auto& [name, value] : interactions.json().items()) {
        group.interactions.push_back(interaction_of(name, interactions.object(name.c_str())));
      }
    }
    if (fields.find("gaps") != nullptr) {
      const auto gaps = fields.object("gaps");
      for (const auto& [name, value] : gaps.json().items()) {
        auto& gap = group.gaps.emplace_back();
        gap.severed = name;
        read_roles(gap.roles, gaps.object(name.c_str()),
                   [](EffectSummary& role, const JsonFields& found) { read_effects(role, found, 0); });
      }
    }
    if (fields.find("knockout") != nullptr) group.knockout = knockout_of(fields.object("knockout"));
    if (fields.find("neurons") != nullptr) group.neurons = neurons_of(fields.object("neurons"));
    if (fields.find("measures") != nullptr) {
      const auto measures = fields.object("measures");
      for (const auto& [name, value] : measures.json().items()) {
        group.measures.push_back(reading_of(measures.object(name.c_str())));
        group.measures.back().measure = name;
      }
    }
    if (fields.find("other_targets") != nullptr) {
      const auto count = fields.list("other_targets").size();
      for (std::size_t i = 0; i < count; ++i)
        group.other_targets.push_back(reading_of(fields.item("other_targets", i)));
    }
    return group;
  }

  JsonOrigin origin_;
  JsonFields fields_;
};

}  // namespace

SummaryResult read_summary_result(const nlohmann::ordered_json& json, const std::string& where) {
  return SummaryResultReader(json, where).read();
}

}  // namespace rometrace
