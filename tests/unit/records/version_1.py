"""Records of format version 1, as the last pydamon that wrote it made them: packed by xz, in base 85.

``rich`` is `rich_record.rich(path, seconds=1)`. ``tables`` has three snapshots, each a message and a target of its
own, and the side tables that ``rich`` lacks, one of them another program's. ``imported`` is what an import of text was.
"""

from __future__ import annotations

import base64
import lzma
from pathlib import Path

_RICH = (
    "{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;88CRfn5N9=%4^#3yD4hEJ$ZqXxLLq`J(2Het%<G)Szd(R61rR{hYPC^KTU=ps5#M+>8|3h0-Mc<WsqA6W"
    "p8=0m6c#YhPmUg55|PBnVMQX!9iy*`%iFD5D9y>N^<7?qlnhDe6GVVYj+FJmoH`0l(nU0YJVwy!7`Y!eQVIHZ;UcJ1uzgSh6B|c)+YC5u+x?|MkZ"
    "}AWD!m>=B6SlhVkvt1B!kW%tc)U}hE=%(&WAYV#J{q=2t(evU=v8?}5`o_mhAURT}{S&$~#rxa!($RZ|FR!)#SC{Rx;W8rZ@2X#^R8Bsdm8OmOkP"
    "S_zHi(Rk9th)mllLr(%H}@}uX5y}QV1Z?k!>uTvm=Q@h+SCHY>2c|F0b$4t7>@|&T&Y&%W!dS=E2YG7<SA?`+4#mXQ3~d4`!~v_#w}}&(2kDv@-1"
    "&EkF<iopPk3}Ney8%gbrRHLhu2j;<ZF6u?{qaP}=`F&sctbi*7yPDG{uKF}*N&58{=mdtj;@*vKC6NymIO^0qvYXR{}q*RrTq8rLb{-?CjAuZvn6"
    "Uf{^b3wJ4RB3rDO^N50zEQ&ye-wyYa=GuL1iI;4$dQZj(-p6nGG0W=eki>f0_pGDQjXeD)S^66~uyeOj?;c^y2d5Bnr;r}LW(SqKgqPJ~^Q5w{%;"
    "eZvcW1iDp}x~ePV76u?F-L%1Jr!!Wg}6|L%M1J?3$z`gIP)U>vvOx1?#o|Y>USLV4_#`G^M-tiRX+kX!+Ut*0zM}ct>PsUVjM*#e|S)HM8W_3YW)"
    "MA28}j1++es<m=8WRH)<};J5XWn^=EQOtb-?C&NZE3q}D9wyyb?*#Q3=iyi5XP7Ts#%x90pADy&{RN%^$7}K$KtW8m4z^o@&$Ff~vXP-#FrqV{J8"
    "?xpc7Ug$s%G>w>cFY)hjx3dPC=OWwc-RlYY^#;e2EMAN$QpjC@IzZ@KO!gTx?Lw@L;~La1WB*xkc^|q?TxzS_s&3Mfu(qzs)?=pZ$sayQY2?TNHb"
    "6FiaW-T=H%{MsZMss?#ilw;G%Q4%X>bOuX1e?Z7=cV8LMRW{^b3Jc-ZIm_-6<@-+0KA)dDKqbTJ)jr$of+y=-PqAXzpT8A}XC)aZ4>E@t}NC4O@U"
    "Q7>t7;8%`6*IJcmXyyJo{4v^+p#!R_(}i1cLd8`zqIB;>m0sZi@h$V<k?``<pjk^+P&-2#_^#9+<Nh7h2Zb%Wd{v@}@fBrDN<Wic#Q7fk^%<2-Q?"
    ";u@u5)Ov`Z&)h(AvZfqWEeHA5k2XD;3nUa5;AMP0D2>!h(8Fkv#E8gp6W@4MXb=hVq}uwgi%U{Nf{G5eVtPvBYHUC=m4N3cJwBB&smx?v!30?)qC"
    "R5Sl0L@s3|yFcWEH=8k(RF~oE)ic<_A-|bhdaJ}1B_OhhY?fmtC2(LtJ?FF=g38J`&ugHk~t96&=+d@<ddV*-*2Q+j3<H=azPhHV@oXhk_g4SjO5"
    "Bs@|iQ*+1W?dxG>dPC)b1h0gg|?z~ggnR-ct!KjiXiRy@lEc%<R53W3bH}C^$TDbWn)E<6RkgyoY#^X)CeI_p~8jH6W;pXiqtQhZ&eviZ7(l=KDR"
    "q}EryS%Jb|4nt2o24%&psYU$UL4hzGrxbwK&sX`GrNCo&3pe(zLBr6pdRi!N76HWId}_y4v)*RI1Ti`I0d6Z*t}=QtD|j-kd6XrJIOG;4*a>3rtX"
    "=3dO3p_y8c6XKr-v_|q_-$PBp@x?5lqRV+m;Pim%M6sWW4)Jo^_CERR&8&Xb_&WX$qA-taUCU57ziezGr_v$`py3~wKwK70Gj1#gUPtzY%1pTn;E"
    "%do+Y%B#!mH2{dx-a3D_|o`$4C)Y_~X?b!)1=DM~0B)ytQFBIlCGPgreV-Sd6DA9dWKf)Aga(^MCdIx=eQ!bh*~5Cp;VcI2QFEa~sKMI9n^V22M$"
    "oRLG=vDbBkrjRvsBNRIm-p}i_1#-PpIb<LAKeo9P@MklxLD}cqS6(2R}$9%fuVy|F>35;TN&(HWMt`4M*dl}iYP9!tHMCG{@YMD%z-s)OSe15Ztc"
    "CNeU390$)+lyo|14qvdp)2OK>_VNb61+~|vg1+7(-AtJDIAh;*>WoP{*5+k?7JPfnaWs9uPw_?;+xC8eyqcS5&9%ylTP2s7=x+5rGfz^`U|eDJh<"
    "PEbA18|b?=FgXdd~VSnen5$HEblX;(`lm_sb*rM!+L{Y+B3>R|6!Tj<zU$P(IZ(0a4p+3jwe9kIY%neumbvQ3z%JN-$}ri*FbH68*G&LHLB-oxsR"
    "NfjSXWN2q;YT^ri5caw^a;v1ROz+35(%puHv*JBa5vsF$+E63+Y2uQU!EqnbJ(+{HflVOLg;qnOup<Z4j>kQohn?6phx;QlDnbF(d8E)U_Cp+#B%"
    "Mf1QP|3N-FB6Il%SJ{p7-`-C;dDaTRf5N`JFyYhLsvS%8ZR2Uv1+s6x)n=bh_g2tw0bMC;~{(G73+`4Ua<`Kj#6Tp~TJa2q}<e`VPbKC?EUk|K(9"
    "!;s06FV*Bd%#8yE@G&5An9NBgz)mkhBBJ3H(c>r}L)-#kY7EpWwkO8-t{-zd6&;l;)6p(pTD0Z@tQLGPQxyk4A?RQI0`MAsE30Y&#g^JyY_^ySEb"
    "pRO^rF&(T&dRlVB(45ia$>ttHuYCDr(wDV*vdZ(;Et>b;)FU!f&L`u2kuu$!tx6$h)f7DLd3=jq&u}R-bl_dD+dTRBC!iVK`7q|qo4N;fJ}LpLtv"
    "(Ckb%kCx6GUkyaZ=vtWqp+(`VDFd<Fz=8G<6Jk~(vo?FSx+cY)9hXh1%O#an}dgE7>zpD_}UYmiZuR8LWDQRDMKYSaVvXugO$_z~n?*z>pFpX3FW"
    "gJ$?EHhX(sxiFo_?~_E+8g8eiJS8^guOqfMoN-x57T*bC*8Cs3x0dYsQ8+nEK{MF!{wb<^ylAe=h*|94sxDBV$dB|^Rbb{T*o5!99G3s`C|uR7Ow"
    "gSa021GkSeAW?XiM+t`(y0rne3M-shi?#<tzz^`Jm5I2S0&nhX4+8SexgtnMgtoV~2_r1CbYCg|P2oWgY^BeaU@%Ab9D_sFvngvXAST-oRyB!koy"
    "{bqE)BU*&0AZmChweh$hBkq?m^nM1$q^efF*^o)|KlI3l1PFE^nBA=$(fI+>gmi1n{s?->cZ#;@5pp||&Cu|Vs9KXU9-trR8(<>+G9ezrS#{8tN="
    "q|JOzZ&KGT@4+u?&_jFiVG>u@PzBG)A@`HS{(3nCcD3QDD<mqnUv#2-G;VpVPQa6_l*a2Du#!RnZ=t*sZ%Tiy==lkmFw&hGY)9(qZa8^8W8#Qa|B"
    "FiG)Y9`CfbsV%<(kW#a;K`TdL?ewB+>n_(CIt*vvMJ-KE1xGF*IXuC3POxS4ME4bhJH!DYo*bp!(ak03E_b{D@7^2*5xn>M^5tZ0`Zf~8&GOL3ak"
    "Q}{z7d|)PRsdz0+UWJg_S!9!_Vp~?Z6Bh2by8i5c)S;k5>Y?<+fOZXOA>=VA7Uh-@em9*yM(}mMO-8rDP4QdPWC~X&llcHt5d3E@+`Ya;z}h*2eU"
    "*J2G2A{=3EJ=j{N$}%HOKnij)Cy&Nxlp}^_P1Mc%aj*4V*~xN+fynHz=xD&dZCQBbrk|(vhNCSZx*ZZY#*4pXWL6Uyca{t#kH29F^<EoiE2!BN3v"
    "kYNl+Y+xHmC_fN1bI6HJ+T^vzgxQhUjQ2Y4<Tq}tfYDi>mHMKE)N1Hd8%?#-F1egWv_Q%~0%gh8EWCgN_>3{j}!^~Rmu#=D8@J|rmvFtx~?0uW!E"
    "q>kP^WG?OG*-cFkGy96=0@)kk3b#x6F*+8IMTS^&rHh#Qq$6~r@m?;*dY4g<ac%$Q#CsaYxe_e(Z)z10(}Oo6Vb;>7-=WCGN2e+v33qR#m>;BRCf"
    "2Qv<uFjzUAShYPK{oekaLB;U4R+ZI^-ZS}R6>9u9AiXeSwVv>J4hs{Kr~>PimRTqB~V*Xk4uIQylqzl9Q^dO<HXxI+gDn2Na8#^&tA8;?FCAYhP3"
    "=Q$6lUPffRb9*b^lLFkYv-uGbB`@+-EITU&&(T8U2b!?B8^YiW7an_yD167|wofUArN043=$5?3osX!?oQclZhy}S(nm#dmdsRfpjDfkKHQK%8F<"
    "lKSw*Qb?f(OujEJk1}hq=wKgGmJcwq_9SbI4C_mP|Pe?~t+JkY5qak9$$?%w83~x(=|u6ubdHG?bghGy5DTL3$-+4zGRo7g`ET&2ah*qCu%@$YaI"
    "vTs%-XZVv`%v8~?47TpQT#9f4YSOUoIb_BGv`sYSE>o{{hDvL-lDr)`9i9{rrSFm`wrHt#{(z4mPoLD^NEE(|d?Z-LiasE4_9L#e+fc?}4L8mh5%"
    "YS4TQ&K0GEo<`e`TgWzxSx2Mr_b%w%7iayA4b&7wtbThgd^zrUn~yjLXWvkwlb_@_IYWmqZ6~}ue}PS%%Y_Dc19-_Sj7~ncDD4f?MVykXvFj@0BG"
    "kr2<h>B4{!}@8^t=;6>6Q5o?kv&teX3AbB%}fD57aU_=jK-3xSx4mPc?Vpif;4oqLI8o(DS$m6>j%fh+_vojNQ$cz&_gdjqtZETTHMyKq}uWYxz%"
    "28MHR#`7wEj7BK!5H##!#MoHebT3as514G$B}Z}&6c4KYD3YDfihnCqPWnY^$J}wznug0en4Z)`eu@*v5(%CHFCT(lLd7F&)5~-{v9;&T2HHi{1o"
    "P5RYG0G9Ox@{G!Vv-~BgDXQ>w6In*Gax>NZja%emWh=;mxHI-pzTK=QQAW42`uxl}vin2$B>92`BY8F0+WF8YD>=Ia(|)BL^3{82^62w#LS|!F3B"
    "}Reebraf0WnSMe_W6VWVq2O4>#tFVXr>wgZN>v`&$oNPuW6pD)DF2r|2En@?qV}NlML>q-)_6Y=Wzov&p(Qv;WqB^4@_t4K8-Z?wgb@w7QKwr+@d"
    "+dE0e=LflBPi{(V5=wgFP|pnSeBos<<gSQd{#&dW1TY5#xbF3k`&gn5yoAn-25v*L5pDYS?CbA9<8WQmZ%BD8&pKXX6UD~!;K+Ibo#u<LDG*d;lH"
    "FI^XRB(10{Gby!2kRXfqCy5{z2U$${f|3ApMnQ)Iwr_Z1~5?~y8uR!?F%%wJUi*Ygh2J&;ET00000p`Uv<&O>@T00EsJu%ZC~#wUngvBYQl0ssI2"
    "00dcD"
)

_TABLES = (
    "{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;4_a1hg|@F=%xT*3yD4hEJ$ZqXxLLq`J(2Het%<G)Szd(RHk{R{hYPC^KTU=ps6%r^naB&o)rPUffyq+aT"
    "Nt6CSj8Zrt(_(mcIJ?J86CGUBh143G<|!8p<Z^%6k<j81O$qjT*!OPWsdFuHq0HHI1XrzC0GoyB@EwLKxxx6@T_ZPP&G3><0S7=Z&)xB(KwnRrL8"
    "tGjSAWL!zR}7H{6n8&OpuL4oZWqNY2Sx-#&KFiH-sOIsFLdmhwxnS9gtQ%m!PaoJ?4kwc(nF{Zni8JlEkIUPyJ7cC72r^`imS2-mCs3<^+>V?3S7"
    "`6CX!t;{$h=1Ogk>!A}#hiQ71T;Xm6>--+&YA95UtASx-KU3;m#a2EGMn>_-E{A2?;)@+SB5#J&v>V1FxsJpw5|GvX|%KBoRpryU!g3lU^LMU5C_"
    "$Fig&b3&wf6+sqQ~qZPOO1c=*y7rsN1P_}07N_YtO{pXHs(Z>nji;?h@CTBE&;LzHejmIzSiyhCDpTI?KMMkKJKWlp*OX%>yA&Z)a+WZuZUv_eq7"
    "j-`esQ->@?Yu3vNIjMMv+oiKW<8emPR(|O~kZF1z{uNa9BepOK2guMQGeehLvJUFUfq<^&-uI@r1&|->RBvi%{Sh%(f~v7b=aT@r5mmA2O=<^$HH"
    "5gR7YUpQ3?|P??`a*TjV@%=L#gj^^dby7H>S-d5pO(%il*?0WB#Cxcg1Mz;2>s7rPYPau!w*%KC7ke1ZVhT;$;(EFyr#_fjv*0=#6-LGZVsQb$3J"
    "Z#<I+GbF?P3z@BA0Z~Bf`R!D~eT*T$JeEq#q_yvzE(;;63d-#U*s16K&WvjwInzleqoNkWQE47cep%&GYX|{h8=Xj>}E;1N$FRK8@$w(g}FcQzK?"
    "#(^7=rFalnAgjVA@Ho_SeUA}*n%!o4u=_`DVt_4Mt7Jn5yp|_sQg`f=HRVC&b`Z|(C1y`zW`znD`M)SaqUL?)BAt3KmQZ5$(Ygy;ijt^MpoFKvVL"
    "b0u<#lKtqR|xT89MbmT?M7`=BJ|*9`+jwf@FlfH*J^NNdb`M}u?cxQZthXNS8|iInQsJBWfeCHW+iL`CBsS~J;On)M1pzKPFmww}}n^ItC;*Xk)D"
    "FqQdY(*36AATpm7@>2JL3Jhq#x`tB%xkldvENJ{fPb>kHc2X}Y_UwK-dPqzrKBhgFPGC`1+#ompl0p(?$=BlR&uir0g=U*Q>-@Y{m(pjz&a~Y3+s"
    "H7UF&ZNoc&JO|^ASmH78;oZ8x7e2-+%%%{|rTYp|VruTnyy_Nx|f_g2HwH(D@|RUGcsiN(jb(Rh1qxuvvPL4eT$S+6e+0yVr8_AE?SWupe<Vqi_l"
    "q?FiPHUweTDvz!Mi^Ur({H!M#=&%PZ~-AEWS4tU;}47oQ3xcPG+Bay|vJiXY|MCX7hj_ljq6EE@?o$XSQ7!V@=X|6mWaNRrb5yv5mvGmi%AYwp=h"
    "ilhVrWXgu{!9SWg8Taso!3AsKy5M<Kv{E0E`CI!wClfw4N8Q!rl^;TTYe|gzA6$JPw6F!j~~MS_B0@cE1Z~%qW-S@b4r<zp~(<;(GO;#WZ_znaui"
    "{?wD0-^+(N}zN_E5WV^UCRFmN84mCrTx#?*?DcvRUt-Z^OfVe}2JZd*u)z*-5Tqn*tS^^*)|;LV#aPFWsZlaw)NZw9hKEk6s=46JADN!5PH!4130"
    "Z)K+4$Y{QbP(7&mz&bWmFWqq~;93fM7h}+%#g%J{-8RJuiGf;?Wu;M`p){fqA4_2T5%FO?*>Dn)GAwU4(Bvv&Z-kn(=Zs`g&CNz)Nf;<b(M;o}T^"
    "LxWAjbdOQ>YR2b>H*B*&3Cah!>Z7v5l|FQEV>GDS2}jHaR2Pb)U0>an)PCR+-aE;2Y}3GiAK;B+Uxxxw<D`+8wBg1h+#Ey#&n0Fbh92&C;%1&WB^"
    "$G_kSVp;go%m+0KxJScyYI{1hRsJMK>v5=}8__MgiovZ!ry4Ej8?H?T?6-mmM7<5x{YDm%!ciS|r<*jgo3|ydo2o;G^_OyC|M$kY)u+Rvj3(s^Dr"
    "cE2I12T-Xia%f(U#geXJHZi*0f@ve(EYdo*LNyX(nFS#-X1o>l6)eHMfSEd0vFemy9ZB5kU4{N|3wFXLxoqex0Rk_Vfogs(#0p++`qYk1g<!Xowp"
    "^Du74Y8tp>(Zgyac-@pJZoX49~V^~k0swu9y+UOVt_J7*^NH1LCoBF@s7uQfUvRjU|rpsB%2^PiMKISx(S{e$-s;jaNSVw1){cySH+>K)>YarLzL"
    "kHnKE?0eS$tmoC`oEglZyIL&2JE#OPDT0_aKoQb2;{i4YD-}()?%T<`vOt3hPo~l?2lkIPXAj9Lw5O$blzBe(>wUgT4$OG#6;*9O^tgF?_oR@gvN"
    "svL22<n6mH!}S#VBmZh6eqbA~EueflKIX%Ep^DWM7_0EBa`nsmZp4aFFJSaSscrKt7H~-4#zQ_{n(xN;fxQF@6*MwOXSgINu`~clm?yYYj&so&#R"
    "?Et!k+4a}x^!=c2as5@NPL^4I4%GZ#08k(Q?bD1tvYt4(z{>q3zoUBYgH;Jw!kE_l{B8m7h@YCcP_$0$<aZHIdp(Oxp$oCkMp@59fnP&40)^G0YE"
    "~k6%lO@`+4Gg}_uhsI;DWBV?hZ^K4ZJU$`6q;-OZKrLKKNOZL%OMZ5^Gw4cD76@@u=E9oHK$U1jlfb+=L5qm=)14S&KQLwdLuU7zk)_zhs2n;{>~"
    "ZbOGl4{M-(g?pRu>KNWpJK^|h(fc_?4dxZbZ>A=|ri!lULR$ITq;k|0`U4Adqso!wano4^qR;3!0O;nx5FREwB;1J=uj00E;BkY@k@t~G`6vBYQl"
    "0ssI200dcD"
)

_IMPORTED = (
    "{Wp48S^xk9=GL@E0stWa8~^|S5YJf5;0^Z#C0zi2=#Btj3yD4hEJ$ZqXxLLq`J(2Het%<G)Szd(QvxaT_ObhmdDCPYR%esJudaEvrm<f_c6)rm{T"
    "k6jIWL%Ayrf8oKE7MfZ<jC|s+)pMIR!PoOT)f&AIijC6j;~63wSVP(<u-)YWTG+4^wa~YkyhrT+;X?x#@bWTtub>`KbYCUI}+odba4{P<t@t-Y~)"
    "`$qto1@?uxDWE0Ey&{#ch@ox2!Z@Z#xFXOJ^6!rBmChl-cAD^A!4<<ecf^?B?^U<UxX!kI2YS2+Q4OT}OXnh0dCjXA^(tDW{r1~K$L<FC;y%lU+J"
    "M&_m2OhKraYCL2Rj&pRPG48`ZWhBb(Or~ZKgtRl$%ViB%crl65GDN3#Z(cu?M1dbm@MQga%CZ1S%2^IkGQvwWACeKt?H!!GwAwnRg!T_Jlm#na)c"
    "5jMnD%Qv%3Y_p{mWBh^9!LhaZ}-K<1w=0kM-NLsLr^H~GI7%*`2m9Q~p+v75FqCJK+=PO9<sV}5ba@)Qs*qDA8?iACEaU|X?OoW45}x$O^fjbytI"
    "+H7QBZ;~a~mo?A31m<nb^-d+kKxLIe0SXir6_EN-!~1H-Yi$E+a_7d5AD_T+_br-&GhYYT^qnQsd#R}Jvg9shQVkY?ac-}kMhozCPp3jr1{z_|gq"
    "))|k4L^S@2lmM4VGfMASs*agKpMsFHXFT%6=CprQv_63wy_IVs)dm3$gc4j->ead7{32#Qgn0MDIWY`h1t_(@RZF57`prhdwOm$bu_<c+1lGXy~^"
    "Z&@+}vT2tte{aG>(z;5l?+7g>UlQ*&%ae5qz8?W}=gc-~<sXOv@6+r~6zU`m^2OC4wZ1cq`pQ-wp@>Gw$EYPIr1}L_%)07n9R>1Y$9ruU-?)ij4O"
    "N3+_KQ_>G=coBe<kS7Y#G2qoKS%ryE}N65V>5L6!pd6_-vfBXx&JDbJQsEtwnU;2Ck_NsAY21KkB;|~HJWp)8%QS@q1Vu<7|V!NqGSq<8}4ulCo&"
    "7<hg{>OAw+JazbBy4$#E^<Xmm*j6Ev(+)%p1?QYgiZgV$SWoL{!Ms-{QTrP{T1k)vIt-R>$uR+YRK_>@f~98vt!#hEknhM`!u-YC1^iS<vbw_a?|"
    "zWIuYgiO;{D)%JFgNe_Wt*{Nqzw?qGF(mmsrRmUi;xGY^kg(}`8wDbA0KTCvG0KTXvrmhCMc-p0BV&XL(MWM*yKNI9G~oe0_YJ>!nM8V%cma5f)8"
    "8urYM@x&EVN?Jfy&@bC<0l7f_|gSbNp^*3Me_6(LGo6&Hc{@yrp`hY$~2rAS>Y=70}z2p$Th{aF{z;$QrP_8om>N@Hd;J**isxpw3J_7Qo|S<cIl"
    "~Nsg=%Q;m?VX<=WH4YJJp000008o0n;ETP`T00F@W_!|HK)F3c=vBYQl0ssI200dcD"
)

_SAMPLES = {"rich": _RICH, "tables": _TABLES, "imported": _IMPORTED}


def version_1(path: Path, name: str) -> Path:
    """The sample of that name, unpacked."""
    path.write_bytes(lzma.decompress(base64.b85decode(_SAMPLES[name])))
    return path
