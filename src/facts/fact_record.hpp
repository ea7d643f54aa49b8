#pragma once

#include <functional>  // std::less
#include <initializer_list>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rometrace/facts/facts.hpp"

namespace rometrace {

/// What a record must have.
enum class Need {
  kWordings,  ///< all that `Fact` promises
  kEdit,      ///< with what an edit needs: `Fact::new_object`, `paraphrases`, `neighbours`
  kSubject,   ///< a subject; nothing else is looked at
};

/// The wordings that a relation gives to each of its facts.
struct RelationTexts {
  std::vector<Wording> templates;  ///< each with "{}" once; those that are held out come last
  std::string fault;               ///< what is wrong with the relation, for each record that uses it; empty if nothing
};

using Relations = std::map<std::string, RelationTexts, std::less<>>;

/// An id as a record gives it.
struct GivenId {
  std::string field;  ///< "id", "known_id" or "case_id"
  std::string text;
  bool is_number = false;
};

/// Names under which the layouts have the same thing, the first that is there counts.
inline constexpr std::initializer_list<const char*> kIdNames = {"id", "known_id", "case_id"};
inline constexpr std::initializer_list<const char*> kRelationNames = {"relation", "relation_id", "predicate"};
inline constexpr std::initializer_list<const char*> kObjectNames = {"object", "attribute",    "answer",
                                                                    "target", "ground_truth", "target_true"};
inline constexpr std::initializer_list<const char*> kNewObjectNames = {"object_new", "target_new"};

/// The record's id, if it gives one that can be used.
std::optional<GivenId> given_id(const nlohmann::json& record);

/// `where` with the record's id, if it gives one: "facts.json, record 17 (known_id 16)".
std::string label_of_record(const nlohmann::json& record, const std::string& where);

/// Reads one record of any layout but that of relation files; `record`, `where` and an id that is missing are left to
/// the caller. Throws Error.
Fact read_fact(const nlohmann::json& record, const Relations& relations, Need need, const std::string& where);

/// Whether `value` has a name by which records or relation files are known.
bool looks_like_record(const nlohmann::json& value);

/// Whether `value` is a relation with samples.
bool is_relation_file(const nlohmann::json& value);

/// The layout of a record, in words.
std::string layout_of_record(const nlohmann::json& record);

/// The "relations" of our own layout: wordings as {"wordings": [{"text": ..., "held_out": ...}]}, {"prompt": "{} ..."},
/// a list of texts or one text.
RelationTexts read_relation(const nlohmann::json& relation, std::string_view name);

/// The templates of a relation file.
RelationTexts read_relation_file(const nlohmann::json& file, std::string_view name);

}  // namespace rometrace
