ARG V=a/b.tar.gz
FROM x AS one
ARG V
ENV A=${V#*/} B=${V%%.*} C=${V/a*b/x} D=${V//?/-} E=${N:-${V:+${A}}}
COPY --chown=1:2 a* b/ /to//
RUN  a   \
  && b 
FROM one
