#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>
#include <unordered_set>
#include <utility>

#include "rometrace/error.hpp"
#include "rometrace/text/aligned_text.hpp"
#include "rometrace/text/sentencepiece_check.hpp"
#include "rometrace/text/spaces.hpp"
#include "rometrace/text/utf8.hpp"
#include "text/backend.hpp"
#include "text/sentencepiece_load.hpp"

namespace rometrace {
namespace {

using sentencepiece::SentencePieceProcessor;

// A message that is appended is merged: normalizer_spec (3) of add_dummy_prefix (3), remove_extra_whitespaces (4)
// alone.
constexpr std::string_view kWithFirstSpace{"\x1A\x04\x18\x01\x20\x00", 6};
constexpr std::string_view kWithoutFirstSpace{"\x1A\x04\x18\x00\x20\x00", 6};

/// Nothing: as the model says.
std::optional<FirstSpace> first_space_of(const TokenizerConfig& config) {
  if (!config.add_prefix_space.value_or(true)) return FirstSpace::kNowhere;
  return first_space_of_class(config);
}

class SentencePieceModel final : public Backend {
 public:
  SentencePieceModel(const std::string& model, const std::string& where, const TokenizerConfig& config,
                     const std::filesystem::path& tokenizer_json)
      : first_space_(first_space_of(config)), lower_case_(config.lower_case) {
    check_sentencepiece_model(model, where);
    load_sentencepiece(model_, model, where);
    if (first_space_) {
      load_sentencepiece(spaced_, model + std::string(kWithFirstSpace), where);
      load_sentencepiece(bare_, model + std::string(kWithoutFirstSpace), where);
    }
    read_added(config);
    read_prefix(config, tokenizer_json);
  }

  std::vector<Token> encode(std::string_view text, SpecialTokens special) const override {
    std::vector<Token> tokens;
    std::size_t begin = 0;
    for (const auto& match : added_->find(text, special)) {
      append_stretch(text, {begin, match.begin}, special, tokens);
      tokens.push_back({match.id, match.begin, match.end});
      begin = match.end;
    }
    append_stretch(text, {begin, text.size()}, special, tokens);
    return tokens;
  }

  std::string decode(std::span<const std::int32_t> ids) const override {
    std::string text;
    std::vector<int> run;
    const auto flush = [&] {
      std::string part;
      const auto status = model_.Decode(run, &part);
      if (!status.ok()) throw Error("token ids: SentencePiece cannot join them: " + one_line(status.ToString()));
      text += part;
      run.clear();
    };
    for (const std::int32_t id : ids) {
      if (is_of_model(id)) {
        run.push_back(id);
      } else {
        flush();
        text += token_bytes(id);
      }
    }
    flush();
    return text;
  }

  std::string token_bytes(std::int32_t id) const override {
    if (const auto added = names_.find(id); added != names_.end()) return added->second;
    if (!is_of_model(id)) return "";
    std::string piece = model_.IdToPiece(id);
    if (model_.IsByte(id)) {  // "<0xE2>"
      return std::string(1, static_cast<char>(std::stoi(piece.substr(3, 2), nullptr, 16)));
    }
    if (model_.IsControl(id) || model_.IsUnknown(id)) return piece;
    return unmark_spaces(std::move(piece));
  }

  std::int32_t size() const override { return size_; }

  std::span<const std::int32_t> prefix_ids() const override { return prefix_ids_; }

 private:
  bool is_of_model(std::int32_t id) const { return id < model_.GetPieceSize(); }

  /// Added tokens are those of the configuration and the model's control pieces. (Pieces that its maker defined are
  /// found by the model itself.)
  void read_added(const TokenizerConfig& config) {
    std::unordered_map<std::int32_t, AddedToken> added;
    size_ = model_.GetPieceSize();
    for (const AddedToken& token : config.added) {
      const auto [known, is_new] = added.emplace(token.id, token);
      if (!is_new && known->second.content != token.content) {
        throw Error(config.added_where + ": added tokens " + in_quotes(known->second.content) + " and " +
                    in_quotes(token.content) + " both have the id " + std::to_string(token.id) +
                    "; expected an id for each");
      }
      const int known_id = model_.PieceToId(token.content);
      if (known_id != token.id && model_.IdToPiece(known_id) == token.content) {
        throw Error(config.added_where + ": added token " + in_quotes(token.content) + " has the id " +
                    std::to_string(token.id) + ", which has the id " + std::to_string(known_id) +
                    " in the vocabulary; expected the same id");
      }
      size_ = std::max(size_, token.id + 1);
      if (!is_of_model(token.id) || model_.IdToPiece(token.id) != token.content) names_[token.id] = token.content;
    }
    for (int id = 0; id < model_.GetPieceSize(); ++id) {
      if (!model_.IsControl(id) && !model_.IsUnknown(id)) continue;
      if (const auto& piece = model_.IdToPiece(id); !piece.empty()) added.try_emplace(id, AddedToken{piece, id});
    }
    std::vector<AddedToken> tokens;
    for (auto& [id, token] : added) {
      const bool stands_for_others = is_of_model(id) && model_.IsUnknown(id);
      if (token.special && !stands_for_others) special_ids_.insert(id);
      tokens.push_back(std::move(token));
    }
    added_.emplace(std::move(tokens));
  }

  void read_prefix(const TokenizerConfig& config, const std::filesystem::path& tokenizer_json) {
    std::error_code ignored;
    if (std::filesystem::exists(tokenizer_json, ignored)) {
      prefix_ids_ = read_prefix_ids(tokenizer_json, static_cast<std::size_t>(size_));
      return;
    }
    if (!begins_with_bos(config)) return;
    const std::string bos = bos_token_of(config);
    const auto named = std::ranges::find_if(names_, [&](const auto& name) { return name.second == bos; });
    std::int32_t id = named != names_.end() ? named->first : model_.PieceToId(bos);
    if (named == names_.end() && model_.IdToPiece(id) != bos) {
      id = config.bos_token ? -1 : model_.bos_id();  // a model may have a name of its own for it
    }
    if (id < 0) refuse_bos(config, bos);
    prefix_ids_ = {id};
  }

  const SentencePieceProcessor& processor_for(std::string_view text, std::size_t begin) const {
    if (!first_space_) return model_;
    return is_for_stretch(*first_space_, begin) && !begins_with_space(text) ? spaced_ : bare_;
  }

  /// Tokens of a stretch of the text that holds no added token that counts.
  void append_stretch(std::string_view text, ByteRange stretch, SpecialTokens special,
                      std::vector<Token>& tokens) const {
    const std::size_t before = tokens.size();
    append_pieces(text, stretch, tokens);
    if (special == SpecialTokens::kParse) return;
    const auto is_special = [&](const Token& token) { return special_ids_.contains(token.id); };
    const auto found = std::find_if(tokens.begin() + static_cast<std::ptrdiff_t>(before), tokens.end(), is_special);
    if (found == tokens.end()) return;
    throw Error("text, byte " + std::to_string(found->begin) + ": spells the special token " +
                in_quotes(token_bytes(found->id)) +
                ", which this SentencePiece model finds in any text; expected a text without it, or --special-tokens");
  }

  void append_pieces(std::string_view text, ByteRange stretch, std::vector<Token>& tokens) const {
    const std::string_view original = text.substr(stretch.begin, stretch.end - stretch.begin);
    if (original.empty()) return;
    const auto& processor = processor_for(original, stretch.begin);
    if (!lower_case_) {
      for (const auto& [id, begin, end] : split(processor, original)) {
        tokens.push_back({id, stretch.begin + begin, stretch.begin + end});
      }
      return;
    }
    const AlignedText lowered = to_lower_case(original);
    for (const auto& [id, begin, end] : split(processor, lowered.text())) {
      const ByteRange range = lowered.original(begin, end);
      tokens.push_back({id, stretch.begin + range.begin, stretch.begin + (begin < end ? range.end : range.begin)});
    }
  }

  static std::vector<Token> split(const SentencePieceProcessor& processor, std::string_view text) {
    std::vector<Token> tokens = pieces_of(processor, text);
    widen_empty_ranges(processor, text, tokens);
    return tokens;
  }

  /// SentencePiece gives a character's bytes to the last of the pieces that come from it and nothing to the others
  /// (byte fallback; characters that normalisation lengthens). Here each of them covers the character. What stays
  /// empty comes from no character: the space that is put before a text.
  static void widen_empty_ranges(const SentencePieceProcessor& processor, std::string_view text,
                                 std::vector<Token>& tokens) {
    for (std::size_t i = tokens.size(); i-- > 0;) {
      Token& token = tokens[i];
      const bool is_added_space = i == 0 && processor.IdToPiece(token.id) == kSpaceMark;
      if (token.begin < token.end || token.begin >= text.size() || is_added_space) continue;
      token.end = token.begin + std::max<std::size_t>(1, utf8_character_length(text.substr(token.begin)));
      const bool next_is_same_character =
          processor.IsByte(token.id) && i + 1 < tokens.size() && tokens[i + 1].begin == token.begin;
      if (next_is_same_character) token.end = tokens[i + 1].end;
    }
  }

  std::optional<FirstSpace> first_space_;
  bool lower_case_;
  SentencePieceProcessor model_;   // as the file says
  SentencePieceProcessor spaced_;  // with a space before the text; loaded where the rule is not the model's
  SentencePieceProcessor bare_;    // without
  std::unordered_map<std::int32_t, std::string> names_;  // of added tokens that the model has not, or not so
  std::optional<AddedTokenFinder> added_;
  std::unordered_set<std::int32_t> special_ids_;  // of them
  std::int32_t size_ = 0;
  std::vector<std::int32_t> prefix_ids_;
};

}  // namespace

std::unique_ptr<const Backend> make_sentencepiece_model(const std::string& model, const std::string& where,
                                                        const TokenizerConfig& config,
                                                        const std::filesystem::path& tokenizer_json) {
  return std::make_unique<SentencePieceModel>(model, where, config, tokenizer_json);
}

}  // namespace rometrace
