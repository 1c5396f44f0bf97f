# What CBSD's shell makes of the arguments of a command, step by step: the
# tilde separates words, patterns become names of files, a double quote may be
# closed in a later word, echo swallows -n, and the value of a known name is
# evaluated.
_model_read() {
	_m_open= _m_text= _m_line=
	for _m_word in $*; do
		_m_closed=
		if [ -z "$_m_open" ]; then
			case "$_m_word" in
			?*=*) _m_name=${_m_word%%=*} _m_value=${_m_word#*=} ;;
			*)
				_m_line="$_m_line $_m_word"
				[ -n "$_m_twice" ] || printf 'word %s\n' "$_m_word"
				continue
				;;
			esac
		else
			_m_value=$_m_word
		fi
		_m_before=${_m_word%%\"*}
		case "$_m_word" in
		?*\") # its only quote is the last character: that ends it, even if it never began
			[ "$_m_before\"" = "$_m_word" ] && _m_open= || _m_open=1
			_m_closed=1
			;;
		?*\"*) _m_open=1 ;;
		\") _m_open=1 _m_closed=1 ;;
		esac
		_m_value=$(echo $_m_value | tr -d '"')
		if [ -n "$_m_open$_m_closed" ]; then
			[ -n "$_m_text" ] && _m_text="$_m_text $_m_value" || _m_text=$_m_value
			_m_value=$_m_text
		fi
		[ -n "$_m_closed" ] && _m_text= _m_open=
		case "$_m_known" in
		*" $_m_name "*)
			eval "$_m_name=\"$_m_value\""
			[ -n "$_m_twice" ] || eval "printf 'arg %s=%s\\n' $_m_name \"\$$_m_name\""
			;;
		esac
		_m_line="$_m_line $_m_name=\"$_m_value\""
	done
}

cbsd_arguments() {
	_m_wrapped=$1 _m_known=" $2 " _m_twice=
	shift 2
	_m_ifs=$IFS
	if [ "$_m_wrapped" = 1 ]; then # the wrapper reads them, and what it prints is read again
		_m_again=$(_m_twice=1 IFS="~" && _model_read $* && printf '%s' "$_m_line")
		set -- $_m_again
	fi
	IFS="~"
	_model_read $*
	IFS=$_m_ifs
	return 0
}
