#include "text/converted_rules.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <string_view>
#include <vector>

#include "rometrace/text/spaces.hpp"
#include "text/json_shown.hpp"
#include "text/rule_fields.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

json pattern_of(std::string_view text) {
  return {{"String", text}};
}

/// "Replace" writes each space as "▁", "Prepend" puts another in front, whichever of the two comes first.
BpeRules::Normalizer read_space_normalizer(const json& stage, const std::string& where) {
  if (stage.is_null()) return BpeRules::Normalizer::kNone;
  bool replaces = false;
  bool prepends = false;
  for (const auto& [name, part] : stages_of(stage, "normalizer", "normalizers", where)) {
    if (has_type(*part, "Replace") && !replaces) {
      check_fields(*part, where, name + ".", {{"type", {}}, {"pattern", {pattern_of(" ")}}, {"content", {kSpaceMark}}});
      member(*part, "pattern", where + ", " + name);
      member(*part, "content", where + ", " + name);
      replaces = true;
    } else if (has_type(*part, "Prepend") && !prepends) {
      check_fields(*part, where, name + ".", {{"type", {}}, {"prepend", {kSpaceMark}}});
      member(*part, "prepend", where + ", " + name);
      prepends = true;
    } else {
      refuse_field(where, quoted(name), *part, "one of type Prepend at most, and one of type Replace");
    }
  }
  if (!replaces && prepends) refuse_field(where, "\"normalizer\"", stage, "another of type Replace");
  if (!replaces) return BpeRules::Normalizer::kNone;
  return prepends ? BpeRules::Normalizer::kMarkedSpacesBehindOne : BpeRules::Normalizer::kMarkedSpaces;
}

/// Old files leave out the scheme ("always") and the split (which is made), and have "str_rep", which nothing reads.
FirstSpace read_metaspace(const json& stage, const std::string& where, const std::string& name, BpeRules& rules) {
  check_fields(
      stage, where, name + ".",
      {{"type", {}},
       {"replacement", {kSpaceMark}},
       {"prepend_scheme", {"first", "always", "never"}},
       {"add_prefix_space", {true, false, nullptr}},  // of old files; tokenizers insists that it fits the scheme
       {"split", {true, false, nullptr}},
       {"str_rep", {}}});
  member(stage, "replacement", where + ", " + name);
  rules.splits_words = stage.value("split", json()) != false;
  const bool bare = stage.value("add_prefix_space", json()) == false;
  const json scheme = stage.value("prepend_scheme", json(bare ? "never" : "always"));
  if (scheme != "never" && bare) {
    refuse_field(where, quoted(name + ".add_prefix_space"), false, "true beside this prepend_scheme");
  }
  if (scheme == "never") return FirstSpace::kNowhere;
  return scheme == "first" ? FirstSpace::kOfTheText : FirstSpace::kOfEachStretch;
}

/// Gemma's, which cuts behind spaces: without effect, as the normaliser leaves none.
void check_split(const json& stage, const std::string& where, const std::string& name) {
  check_fields(stage, where, name + ".",
               {{"type", {}}, {"pattern", {pattern_of(" ")}}, {"behavior", {}}, {"invert", {false}}});
  member(stage, "pattern", where + ", " + name);
  read_flag(stage, "invert", where, name);
}

FirstSpace read_first_space(const json& stage, BpeRules& rules, const std::string& where) {
  const bool marked = rules.normalizer != BpeRules::Normalizer::kNone;
  if (stage.is_null() && marked) return FirstSpace::kNowhere;
  const auto stages = stages_of(stage, "pre_tokenizer", "pretokenizers", where);
  if (stages.size() != 1) refuse_field(where, "\"pre_tokenizer\"", stage, "one stage");
  const auto& [name, part] = stages.front();
  if (has_type(*part, "Metaspace")) return read_metaspace(*part, where, name, rules);
  if (!marked || !has_type(*part, "Split")) {
    refuse_field(where, quoted(name), *part, marked ? "null, type Metaspace or type Split" : "type Metaspace");
  }
  check_split(*part, where, name);
  return FirstSpace::kNowhere;
}

/// Whether a space in front of what was decoded is dropped.
bool read_decoder(const json& stage, const std::string& where) {
  static const std::array<json, 4> kStages = {
      json{{"type", "Replace"}, {"pattern", pattern_of(kSpaceMark)}, {"content", " "}}, json{{"type", "ByteFallback"}},
      json{{"type", "Fuse"}}, json{{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}}};
  if (stage.is_null()) return false;
  const auto stages = stages_of(stage, "decoder", "decoders", where);
  for (std::size_t i = 0; i < std::min(stages.size(), kStages.size()); ++i) {
    if (*stages[i].second != kStages[i])
      refuse_field(where, quoted(stages[i].first), *stages[i].second, shown(kStages[i]));
  }
  const bool strips = stages.size() == kStages.size();
  if (!strips && stages.size() + 1 != kStages.size()) {
    refuse_field(where, "\"decoder\"", stage, "Replace, ByteFallback, Fuse, and perhaps Strip");
  }
  return strips;
}

}  // namespace

bool is_converted(const json& root) {
  return std::ranges::any_of(std::array{"normalizer", "pre_tokenizer"}, [&](const char* stage) {
    const std::string text = root.value(stage, json()).dump(-1, ' ', false, json::error_handler_t::replace);
    return text.find(kSpaceMark) != std::string::npos;
  });
}

BpeRules read_converted_rules(const json& root, const std::string& where) {
  check_bpe(root, where, {true}, {false, nullptr});
  member(root["model"], "byte_fallback", where + ", model");
  BpeRules rules;
  rules.alphabet = BpeRules::Alphabet::kCharacters;
  rules.normalizer = read_space_normalizer(root.value("normalizer", json()), where);
  rules.first_space = read_first_space(root.value("pre_tokenizer", json()), rules, where);
  rules.decoding_drops_first_space = read_decoder(root.value("decoder", json()), where);
  return rules;
}

}  // namespace rometrace
