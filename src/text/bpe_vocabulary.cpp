#include "rometrace/text/bpe_vocabulary.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <tuple>
#include <unordered_map>
#include <unordered_set>

#include "rometrace/error.hpp"
#include "rometrace/text/byte_alphabet.hpp"
#include "rometrace/text/input_file.hpp"
#include "rometrace/text/json_file.hpp"
#include "text/added_token_json.hpp"
#include "text/bpe_rules.hpp"
#include "text/bpe_tokens.hpp"
#include "text/json_shown.hpp"
#include "text/rule_fields.hpp"

namespace rometrace {
namespace {

using nlohmann::json;

// A token is checked in time quadratic in its length.
constexpr std::size_t kMaxTokenBytes = 4096;
constexpr std::string_view kEndOfText = "<|endoftext|>";

// ---------------------------------------------------------------------------------------------------------------------
// Reading: what both file formats share

/// {"token": id, ...} -> tokens by id.
std::vector<std::string> read_tokens(const json& object, const std::string& where) {
  if (!object.is_object()) throw Error(where + ": found " + shown(object) + "; expected an object of token: id");
  if (object.empty()) throw Error(where + ": has no tokens; expected an object of token: id");
  std::vector<std::string> tokens;
  for (const auto& [token, value] : object.items()) {
    if (token.empty()) throw Error(where + ": has the empty string as a token; expected at least one character");
    const auto id = static_cast<std::size_t>(read_token_id(value, where, token));
    if (id >= tokens.size()) tokens.resize(id + 1);
    if (!tokens[id].empty()) {
      throw Error(where + ": tokens " + in_quotes(tokens[id]) + " and " + in_quotes(token) + " both have the id " +
                  std::to_string(id) + "; expected an id for each");
    }
    tokens[id] = token;
  }
  return tokens;
}

/// Added tokens, checked against the vocabulary and against each other.
class AddedReader {
 public:
  explicit AddedReader(BpeVocabulary& vocabulary) : vocabulary_(vocabulary), ids_(ids_of(vocabulary.tokens)) {}

  /// A token that is there already gets the flags of this one.
  void add(const AddedToken& added, const std::string& where) {
    const auto& [content, id] = std::tie(added.content, added.id);
    const auto known = ids_.find(content);
    const bool id_taken = static_cast<std::size_t>(id) < vocabulary_.tokens.size() && !token(id).empty();
    if (known != ids_.end() ? known->second != id : id_taken) {
      const std::string other = known != ids_.end()
                                    ? "which has the id " + std::to_string(known->second) + " in the vocabulary"
                                    : "but the vocabulary has the token " + in_quotes(token(id)) + " there";
      throw Error(where + ": added token " + in_quotes(content) + " has the id " + std::to_string(id) + ", " + other +
                  "; expected the same id");
    }
    const auto [by_content, new_content] = by_content_.emplace(content, vocabulary_.added.size());
    const auto [by_id, new_id] = by_id_.emplace(id, vocabulary_.added.size());
    if (new_content && new_id) {
      vocabulary_.added.push_back(added);
      return;
    }
    if (by_content->second != by_id->second) {
      const AddedToken& other = vocabulary_.added[new_id ? by_content->second : by_id->second];
      throw Error(where + ": added token " + in_quotes(content) + " has the id " + std::to_string(id) + ", but " +
                  in_quotes(other.content) + " has the id " + std::to_string(other.id) +
                  "; expected an id for each token");
    }
    vocabulary_.added[by_id->second] = added;
  }

  void add_all(const TokenizerConfig& config) {
    for (const AddedToken& added : config.added) add(added, config.added_where);
    for (const std::string& content : config.named) {
      add_special(content, config.where);
      const auto known = by_content_.find(content);
      if (known != by_content_.end()) vocabulary_.added[known->second].special = true;
    }
    for (const std::string& content : config.extra) add_special(content, config.where);
  }

  /// The token as a special one, where the vocabulary has it; one that was added keeps its flags.
  void add_special(std::string_view content, const std::string& where) {
    if (by_content_.contains(std::string(content))) return;
    if (const auto id = id_of(content)) add({.content = std::string(content), .id = *id}, where);
  }

  std::optional<std::int32_t> id_of(std::string_view content) const {
    if (const auto found = by_content_.find(std::string(content)); found != by_content_.end()) {
      return vocabulary_.added[found->second].id;
    }
    const auto found = ids_.find(content);
    return found == ids_.end() ? std::nullopt : std::optional(found->second);
  }

  /// Call when all are in: makes room for the ids that only added tokens use.
  void finish() {
    for (const auto& added : vocabulary_.added) {
      const auto size = static_cast<std::size_t>(added.id) + 1;
      if (size > vocabulary_.tokens.size()) vocabulary_.tokens.resize(size);
    }
  }

 private:
  const std::string& token(std::int32_t id) const { return vocabulary_.tokens[static_cast<std::size_t>(id)]; }

  BpeVocabulary& vocabulary_;
  TokenIds ids_;  // views of vocabulary_.tokens, which does not change before finish()
  std::unordered_map<std::string, std::size_t> by_content_;  // places in vocabulary_.added
  std::unordered_map<std::int32_t, std::size_t> by_id_;
};

void check_tokens(const BpeVocabulary& vocabulary, const std::string& where) {
  std::unordered_set<std::int32_t> added;
  for (const auto& token : vocabulary.added) added.insert(token.id);
  for (std::size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const std::string& token = vocabulary.tokens[id];
    if (token.size() > kMaxTokenBytes) {
      throw Error(where + ": token " + in_quotes(token, 40) + " is " + std::to_string(token.size()) +
                  " bytes long; expected at most " + std::to_string(kMaxTokenBytes));
    }
    if (vocabulary.rules.alphabet == BpeRules::Alphabet::kCharacters) continue;
    if (from_byte_alphabet(token) || added.contains(static_cast<std::int32_t>(id))) continue;
    throw Error(where + ": token " + in_quotes(token) + " (id " + std::to_string(id) +
                ") has a character outside GPT-2's byte alphabet; expected a byte-level BPE vocabulary (a space is " +
                "written \"Ġ\"); list the token in added_tokens.json if it is a special one");
  }
}

/// Adds merges to a vocabulary, checking each.
class MergeReader {
 public:
  MergeReader(BpeVocabulary& vocabulary, std::string vocabulary_name)
      : vocabulary_(vocabulary), vocabulary_name_(std::move(vocabulary_name)), ids_(ids_of(vocabulary.tokens)) {}

  /// `written` is "left right"; `where` gives what opens a message.
  template <typename Where>
  void add(std::string_view written, const Where& where) {
    const std::size_t space = written.find(' ');
    const bool two_parts = space != std::string_view::npos && space > 0 && space + 1 < written.size() &&
                           written.find(' ', space + 1) == std::string_view::npos;
    if (!two_parts) {
      throw Error(where() + ": found " + in_quotes(written) + "; expected two tokens with one space between them");
    }
    add(written.substr(0, space), written.substr(space + 1), where);
  }

  template <typename Where>
  void add(std::string_view left, std::string_view right, const Where& where) {
    const auto merge = [&] { return where() + ": merge " + in_quotes(std::string(left) + " " + std::string(right)); };
    for (const std::string_view part : {left, right}) {
      if (vocabulary_.rules.alphabet == BpeRules::Alphabet::kBytes || !byte_of_token(part)) continue;
      throw Error(merge() + " is of the token of a byte, " + in_quotes(part) +
                  "; expected tokens of characters; rometrace does not merge bytes");
    }
    result_.assign(left).append(right);
    const auto id_of = [&](std::string_view token, const char* role) {
      const auto found = ids_.find(token);
      if (found != ids_.end()) return found->second;
      throw Error(merge() + " " + role + " " + in_quotes(token) + ", which is not in " + vocabulary_name_ +
                  "; expected files of the same tokeniser");
    };
    if (vocabulary_.merges.size() >= 2 * static_cast<std::size_t>(kMaxTokens)) {
      throw Error(where() + ": too many merges; expected at most " + std::to_string(2 * kMaxTokens));
    }
    vocabulary_.merges.push_back({id_of(left, "needs"), id_of(right, "needs"), id_of(result_, "makes")});
  }

 private:
  BpeVocabulary& vocabulary_;
  std::string vocabulary_name_;
  TokenIds ids_;
  std::string result_;  // of the merge that is added
};

// ---------------------------------------------------------------------------------------------------------------------
// vocab.json + merges.txt

void read_merges_txt(const std::filesystem::path& path, BpeVocabulary& vocabulary, const std::string& vocabulary_name) {
  const std::string text = read_text_file(path);
  const std::string label = label_of(path);
  MergeReader merges(vocabulary, vocabulary_name);
  std::size_t number = 0;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    std::string_view line = std::string_view(text).substr(begin, end - begin);
    begin = end + 1;
    ++number;
    if (line.ends_with('\r')) line.remove_suffix(1);
    // Only there: "#" is a token like any other further down.
    const bool is_version = number == 1 && line.starts_with("#version");
    if (is_version || line.empty()) continue;
    merges.add(line, [&] { return label + ", line " + std::to_string(number); });
  }
}

/// The tokenizer classes of Hugging Face that mean GPT-2's files and nothing else. Many others keep a vocab.json and a
/// merges.txt too, but split or normalise text differently.
void check_class(const TokenizerConfig& config) {
  constexpr std::array<std::string_view, 5> kGpt2Classes = {"", "GPT2Tokenizer", "CodeGenTokenizer",
                                                            "PreTrainedTokenizer",
                                                            "TokenizersBackend"};  // transformers 5 for any tokenizer
  if (std::ranges::find(kGpt2Classes, config.tokenizer_class) != kGpt2Classes.end()) return;
  throw Error(config.class_where + ": \"tokenizer_class\" is " + in_quotes(config.tokenizer_class) +
              "; expected GPT2Tokenizer; other tokenisers with the same files split text differently; put their "
              "tokenizer.json beside them");
}

std::int32_t id_of_bos(const TokenizerConfig& config, const AddedReader& added) {
  const std::string bos = bos_token_of(config);
  if (const auto id = added.id_of(bos)) return *id;
  refuse_bos(config, bos);
}

std::vector<std::int32_t> bos_of(const TokenizerConfig& config, const AddedReader& added) {
  // What follows from the model's type is of SentencePiece models.
  TokenizerConfig as_named = config;
  as_named.model_type.clear();
  if (!begins_with_bos(as_named)) return {};
  return {id_of_bos(as_named, added)};
}

// ---------------------------------------------------------------------------------------------------------------------
// tokenizer.json

void read_added_tokens(const json& root, const std::string& label, AddedReader& added) {
  const json list = root.value("added_tokens", json::array());
  if (!list.is_array()) throw Error(label + ": \"added_tokens\" is " + shown(list) + "; expected a list");
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string where = label + ", added_tokens[" + std::to_string(i) + "]";
    added.add(read_added_token(list[i], list[i].is_object() ? list[i].value("id", json()) : json(), where), where);
  }
}

/// Of these classes transformers takes what a byte-level tokenizer.json says; others build a pre-tokeniser of their
/// own.
bool takes_the_file(const TokenizerConfig& config) {
  constexpr std::array<std::string_view, 3> kTakers = {"PreTrainedTokenizer", "TokenizersBackend", "LlamaTokenizer"};
  return std::ranges::find(kTakers, config.tokenizer_class) != kTakers.end();
}

/// A class that builds its own pre-tokeniser does it of "add_prefix_space"; this and the file's must not differ.
void check_first_space(const BpeRules& rules, const TokenizerConfig& config, const std::string& label) {
  if (takes_the_file(config)) return;
  const bool added = rules.first_space != FirstSpace::kNowhere;
  if (config.add_prefix_space.value_or(added) == added) return;
  throw Error(config.where + ": \"add_prefix_space\" is " + (added ? "false" : "true") + ", that of " + label + " is " +
              (added ? "true" : "false") + "; expected the same in both");
}

/// Classes that have a post-processor of their own in place of the file's: GPT-NeoX's adds nothing, Code Llama's the
/// begin-of-text token, whatever "add_bos_token" says. Nothing: the file's is taken.
std::optional<std::vector<std::int32_t>> prefix_of_class(const TokenizerConfig& config, const BpeRules& rules,
                                                         const AddedReader& added) {
  const std::string& name = config.tokenizer_class;
  if (name == "GPTNeoXTokenizer" || (name.empty() && config.model_type == "gpt_neox"))
    return std::vector<std::int32_t>();
  const bool converted = rules.alphabet == BpeRules::Alphabet::kCharacters;
  if (name != "CodeLlamaTokenizer" || !converted || !first_space_of_class(config)) return std::nullopt;
  return std::vector{id_of_bos(config, added)};
}

/// Llama's class takes no more than vocabulary and merges from a converted file.
void heed_class(const TokenizerConfig& config, const std::string& label, BpeRules& rules) {
  if (rules.alphabet == BpeRules::Alphabet::kBytes) {
    check_first_space(rules, config, label);
  } else if (const auto first_space = first_space_of_class(config)) {
    rules.normalizer = BpeRules::Normalizer::kNone;
    rules.first_space = *first_space;
    rules.splits_words = false;
  }
}

void read_merges_list(const json& list, const std::string& label, BpeVocabulary& vocabulary) {
  if (!list.is_array()) throw Error(label + ": \"model.merges\" is " + shown(list) + "; expected a list");
  MergeReader merges(vocabulary, "\"model.vocab\"");
  for (std::size_t i = 0; i < list.size(); ++i) {
    const json& merge = list[i];
    const auto where = [&] { return label + ", model.merges[" + std::to_string(i) + "]"; };
    if (merge.is_string()) {
      merges.add(merge.get_ref<const std::string&>(), where);
    } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
      merges.add(merge[0].get_ref<const std::string&>(), merge[1].get_ref<const std::string&>(), where);
    } else {
      throw Error(where() + ": found " + shown(merge) + R"(; expected "a b" or ["a", "b"])");
    }
  }
}

void check_prefix(const std::vector<std::int32_t>& ids, std::size_t vocabulary_size, const std::string& label) {
  for (const std::int32_t id : ids) {
    if (static_cast<std::size_t>(id) < vocabulary_size) continue;
    throw Error(label + ": post_processor: the id " + std::to_string(id) + " is not in the vocabulary; expected 0 to " +
                std::to_string(vocabulary_size - 1));
  }
}

BpeVocabulary read_parsed(const json& root, const std::string& label, const TokenizerConfig& config) {
  BpeVocabulary vocabulary;
  vocabulary.rules = read_rules(root, label);
  heed_class(config, label, vocabulary.rules);
  const json& model = root["model"];
  vocabulary.tokens = read_tokens(member(model, "vocab", label + ", model"), label + ", model.vocab");
  AddedReader added(vocabulary);
  read_added_tokens(root, label, added);
  added.add_all(config);
  const auto prefix = prefix_of_class(config, vocabulary.rules, added);
  vocabulary.rules.prefix_ids = prefix ? *prefix : prefix_of(root.value("post_processor", json()), label);
  added.finish();
  check_prefix(vocabulary.rules.prefix_ids, vocabulary.tokens.size(), label);
  check_tokens(vocabulary, label + ", model.vocab");
  read_merges_list(member(model, "merges", label + ", model"), label, vocabulary);
  return vocabulary;
}

/// Old files do not name their model.
bool names_another_model(const json& root) {
  if (!root.is_object() || !root.contains("model") || !root["model"].is_object()) return false;
  const json type = root["model"].value("type", json());
  return type.is_string() && type != "BPE";
}

}  // namespace

BpeVocabulary read_vocab_and_merges(const std::filesystem::path& vocab_json, const std::filesystem::path& merges_txt,
                                    const TokenizerConfig& config) {
  const std::string label = label_of(vocab_json);
  check_class(config);
  BpeVocabulary vocabulary;
  vocabulary.tokens = read_tokens(parse_json_file(vocab_json), label);

  AddedReader added(vocabulary);
  added.add_special(kEndOfText, label);
  added.add_all(config);
  vocabulary.rules.splits = {gpt2_split()};
  if (config.add_prefix_space.value_or(false)) vocabulary.rules.first_space = FirstSpace::kOfEachStretch;
  vocabulary.rules.prefix_ids = bos_of(config, added);
  added.finish();

  check_tokens(vocabulary, label);
  read_merges_txt(merges_txt, vocabulary, vocab_json.filename().string());
  return vocabulary;
}

BpeVocabulary read_tokenizer_json(const std::filesystem::path& tokenizer_json, const TokenizerConfig& config) {
  return read_parsed(parse_json_file(tokenizer_json), label_of(tokenizer_json), config);
}

std::optional<BpeVocabulary> read_tokenizer_json_if_bpe(const std::filesystem::path& tokenizer_json,
                                                        const TokenizerConfig& config) {
  const json root = parse_json_file(tokenizer_json);
  if (names_another_model(root)) return std::nullopt;
  return read_parsed(root, label_of(tokenizer_json), config);
}

BpeVocabulary to_bpe_vocabulary(std::vector<std::string> tokens, const std::vector<std::string_view>& merges,
                                const std::vector<AddedToken>& added, BpeRules rules, const std::string& where) {
  BpeVocabulary vocabulary;
  vocabulary.tokens = std::move(tokens);
  vocabulary.rules = std::move(rules);
  AddedReader reader(vocabulary);
  for (const auto& token : added) reader.add(token, where);
  check_tokens(vocabulary, where);
  MergeReader merge_reader(vocabulary, "its tokens");
  for (std::size_t i = 0; i < merges.size(); ++i) {
    merge_reader.add(merges[i], [&] { return where + ", merge " + std::to_string(i); });
  }
  return vocabulary;
}

std::vector<std::int32_t> read_prefix_ids(const std::filesystem::path& tokenizer_json, std::size_t vocabulary_size) {
  const std::string label = label_of(tokenizer_json);
  const auto ids = prefix_of(parse_json_member(read_text_file(tokenizer_json), label, "post_processor"), label);
  check_prefix(ids, vocabulary_size, label);
  return ids;
}

}  // namespace rometrace
